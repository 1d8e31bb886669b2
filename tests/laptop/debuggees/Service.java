import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** Answers every request with what it adds up. */
public class Service {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            int total = 40 + 2;
            byte[] body = ("{\"who\": \"" + arguments[0] + "\", \"total\": " + total + "}").getBytes(); // breakpoint
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
