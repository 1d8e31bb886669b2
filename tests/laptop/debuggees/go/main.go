// Command service answers every request with what it adds up.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		total := 40 + 2
		fmt.Fprintf(w, `{"who": %q, "total": %d}`, os.Args[1], total) // breakpoint
	})
	panic(http.Serve(listener, nil))
}
