// udp ADDRESS:PORT WAY: one datagram, and what comes back, in a static binary. The socket is Go's usual one, of both families,
// unless the way ends in 4.
package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

func ask(to netip.AddrPort, way string) (string, error) {
	network := "udp"
	if strings.HasSuffix(way, "4") {
		network, way = "udp4", way[:len(way)-1]
	}
	address := net.UDPAddrFromAddrPort(to)
	var socket *net.UDPConn
	var err error
	if way == "Write" {
		socket, err = net.DialUDP(network, nil, address)
	} else {
		socket, err = net.ListenUDP(network, nil)
	}
	if err != nil {
		return "", err
	}
	defer socket.Close()
	socket.SetDeadline(time.Now().Add(10 * time.Second))
	switch way {
	case "Write":
		_, err = socket.Write([]byte("hello"))
	case "WriteToUDP":
		_, err = socket.WriteToUDP([]byte("hello"), address)
	case "WriteMsgUDP":
		_, _, err = socket.WriteMsgUDP([]byte("hello"), nil, address)
	default:
		err = fmt.Errorf("no such way: %s", way)
	}
	if err != nil {
		return "", err
	}
	data := make([]byte, 100)
	count, from, err := socket.ReadFromUDPAddrPort(data)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s from %s", data[:count], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())), nil
}

func main() {
	answer, err := ask(netip.MustParseAddrPort(os.Args[1]), os.Args[2])
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("answer", answer)
}
