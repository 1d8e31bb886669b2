import java.net.HttpURLConnection;
import java.net.URI;
import javax.net.ssl.HttpsURLConnection;

/** ByUrlConnection URL CA: HttpURLConnection, whose connections block. */
public class ByUrlConnection {
    public static void main(String[] arguments) throws Exception {
        Trust.print(() -> {
            HttpURLConnection connection = (HttpURLConnection) URI.create(arguments[0]).toURL().openConnection();
            if (connection instanceof HttpsURLConnection https) {
                https.setSSLSocketFactory(Trust.context(arguments[1]).getSocketFactory());
            }
            connection.setReadTimeout(20_000);
            int status = connection.getResponseCode();
            var stream = status < 400 ? connection.getInputStream() : connection.getErrorStream();
            return status + " " + (stream == null ? "" : new String(stream.readAllBytes()));
        });
    }
}
