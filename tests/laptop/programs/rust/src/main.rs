//! `fetch URL CA`: reqwest on tokio, rustls, the system's resolver.

use std::error::Error;
use std::time::Duration;

async fn fetch(url: &str, ca: &str) -> Result<String, Box<dyn Error>> {
    let mut builder = reqwest::Client::builder().timeout(Duration::from_secs(20));
    for certificate in reqwest::Certificate::from_pem_bundle(&std::fs::read(ca)?)? {
        builder = builder.tls_certs_merge([certificate]);
    }
    let response = builder.build()?.get(url).send().await?;
    Ok(format!("{} {}", response.status().as_u16(), response.text().await?))
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().collect();
    match fetch(&arguments[1], &arguments[2]).await {
        Ok(answer) => println!("answer {}", answer.replace('\n', " ")),
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            println!("error {}", text.replace('\n', " "));
            std::process::exit(1);
        }
    }
}
