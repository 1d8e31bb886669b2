import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

/** ByHttpClient URL CA: java.net.http, whose connections are non-blocking. */
public class ByHttpClient {
    public static void main(String[] arguments) throws Exception {
        Trust.print(() -> {
            HttpClient client = HttpClient.newBuilder().sslContext(Trust.context(arguments[1])).build();
            HttpRequest request =
                    HttpRequest.newBuilder(URI.create(arguments[0])).timeout(Duration.ofSeconds(20)).build();
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            return response.statusCode() + " " + response.body();
        });
    }
}
