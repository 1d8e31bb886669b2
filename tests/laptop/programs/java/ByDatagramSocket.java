import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.channels.DatagramChannel;
import java.nio.charset.StandardCharsets;

/** ByDatagramSocket IPV4ADDRESS:PORT WAY: one datagram, and what comes back; the way is send, connect, or channel. */
public class ByDatagramSocket {
    public static void main(String[] arguments) {
        Trust.print(() -> {
            URI to = URI.create("udp://" + arguments[0]);
            InetSocketAddress address = new InetSocketAddress(InetAddress.getByName(to.getHost()), to.getPort());
            return arguments[1].equals("channel") ? byChannel(address) : bySocket(address, arguments[1]);
        });
    }

    private static String bySocket(InetSocketAddress address, String way) throws Exception {
        byte[] data = "hello".getBytes(StandardCharsets.UTF_8);
        try (DatagramSocket socket = new DatagramSocket()) {
            socket.setSoTimeout(10_000);
            if (way.equals("connect")) {
                socket.connect(address);
                socket.send(new DatagramPacket(data, data.length));
            } else {
                socket.send(new DatagramPacket(data, data.length, address));
            }
            DatagramPacket answer = new DatagramPacket(new byte[100], 100);
            socket.receive(answer);
            String text = new String(answer.getData(), 0, answer.getLength(), StandardCharsets.UTF_8);
            return said(text, (InetSocketAddress) answer.getSocketAddress());
        }
    }

    private static String byChannel(InetSocketAddress address) throws Exception {
        try (DatagramChannel channel = DatagramChannel.open()) {
            channel.send(StandardCharsets.UTF_8.encode("hello"), address);
            ByteBuffer data = ByteBuffer.allocate(100);
            InetSocketAddress from = (InetSocketAddress) channel.receive(data);
            return said(StandardCharsets.UTF_8.decode(data.flip()).toString(), from);
        }
    }

    private static String said(String text, InetSocketAddress from) {
        return text + " from " + from.getAddress().getHostAddress() + ":" + from.getPort();
    }
}
