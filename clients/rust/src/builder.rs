//! The settings of a client.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, AUTHORIZATION};
use tokio_rustls::rustls::{
    Certificate, ClientConfig, ConfigBuilder, PrivateKey, RootCertStore, ServerName, WantsVerifier,
};
use tokio_rustls::TlsConnector;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::transport::{Connection, Place};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The certificates of an encrypted connection.
#[derive(Clone, Default)]
pub struct Tls {
    authorities: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Trusts the authorities that the system trusts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these authorities alone; in PEM format.
    pub fn authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// Presents a certificate, for servers that require one; both in PEM format.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    fn connector(&self) -> Result<TlsConnector> {
        let config: ConfigBuilder<ClientConfig, WantsVerifier> =
            ClientConfig::builder().with_safe_defaults();
        let config = config.with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                config.with_single_cert(certificates(certificate)?, private_key(key)?).map_err(
                    |error| unusable(format!("the client certificate is unusable: {error}")),
                )?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(pem) => {
                for certificate in certificates(pem)? {
                    roots.add(&certificate).map_err(|error| {
                        unusable(format!("an authority's certificate is unusable: {error}"))
                    })?;
                }
            }
            None => {
                let system = rustls_native_certs::load_native_certs();
                let system = system.map_err(|error| {
                    unusable(format!("can't read the system's authorities: {error}"))
                })?;
                let system: Vec<Vec<u8>> = system.into_iter().map(|one| one.0).collect();
                roots.add_parsable_certificates(&system);
            }
        }
        if roots.is_empty() {
            return Err(unusable("there are no certificates of authorities to trust"));
        }
        Ok(roots)
    }
}

/// Makes a [`Client`]. Made by [`Client::builder`].
#[must_use]
pub struct ClientBuilder {
    address: String,
    timeout: Duration,
    tls: Option<Tls>,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

impl ClientBuilder {
    pub(crate) fn new(address: String) -> Self {
        Self { address, timeout: TIMEOUT, tls: None, token: None, headers: Vec::new() }
    }

    /// Encrypts the connection.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sends a token with every call; without TLS, only to this machine.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sends a header with every call.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the default timeout of a call, retries included. By default 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the client. The first call opens the connection.
    ///
    /// Fails with [`Error::InvalidSettings`] if the address, the certificates, the token or a
    /// header is unusable.
    pub fn build(self) -> Result<Client> {
        let (place, local) = self.place()?;
        let mut headers = metadata(&self.headers)?;
        if let Some(token) = &self.token {
            if self.tls.is_none() && !local {
                let address = &self.address;
                return Err(unusable(format!(
                    "the token for {address} would be sent in the clear; use TLS"
                )));
            }
            headers.insert(AUTHORIZATION, authorization(token)?);
        }
        Ok(Client::over(Connection::new(place), headers, self.timeout))
    }

    /// Returns where the server is, and whether that is this machine.
    fn place(&self) -> Result<(Place, bool)> {
        let address = &self.address;
        if let Some(path) = address.strip_prefix("unix:") {
            if self.tls.is_some() {
                return Err(unusable("a unix socket needs no TLS"));
            }
            return Ok((Place::Unix(path.into()), true));
        }
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = !host.is_empty() && (bare.is_some() || !host.contains([':', '/', ' ']));
        if !is_host || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(unusable(format!(
                "invalid address {address:?}; write HOST:PORT, such as 127.0.0.1:8001, or unix:PATH"
            )));
        }
        let name = bare.unwrap_or(host);
        let local = name.parse::<IpAddr>().map_or(name == "localhost", |ip| ip.is_loopback());
        let tls = match &self.tls {
            None => None,
            Some(tls) => {
                let server = ServerName::try_from(name)
                    .map_err(|error| unusable(format!("TLS can't verify {name:?}: {error}")))?;
                Some(Box::new((tls.connector()?, server)))
            }
        };
        Ok((Place::Tcp { address: address.clone(), tls }, local))
    }
}

/// Returns headers as HTTP has them.
pub(crate) fn metadata(headers: &[(String, String)]) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let key: HeaderName = name.parse().map_err(|_| {
            unusable(format!("invalid header name {name:?}; use a-z, 0-9, _, - and ."))
        })?;
        if key == AUTHORIZATION || name.starts_with("grpc-") {
            return Err(unusable(format!("the header {name} is set by the client")));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| unusable(format!("the header {name} must be printable ASCII text")))?;
        map.insert(key, value);
    }
    Ok(map)
}

fn authorization(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .ok()
        .filter(|_| !token.trim().is_empty())
        .ok_or_else(|| unusable("the token is empty or has characters that a header can't have"))?;
    // Keeps it out of logs and of HTTP/2's table of headers.
    value.set_sensitive(true);
    Ok(value)
}

fn certificates(mut pem: &[u8]) -> Result<Vec<Certificate>> {
    let found = rustls_pemfile::certs(&mut pem)
        .map_err(|error| unusable(format!("a certificate is not in PEM format: {error}")))?;
    if found.is_empty() {
        return Err(unusable("a file in PEM format has no certificate"));
    }
    Ok(found.into_iter().map(Certificate).collect())
}

fn private_key(mut pem: &[u8]) -> Result<PrivateKey> {
    use rustls_pemfile::Item::{ECKey, PKCS8Key, RSAKey};
    while let Ok(Some(item)) = rustls_pemfile::read_one(&mut pem) {
        if let ECKey(key) | PKCS8Key(key) | RSAKey(key) = item {
            return Ok(PrivateKey(key));
        }
    }
    Err(unusable("the client certificate's key is not in PEM format"))
}

fn unusable(message: impl Into<String>) -> Error {
    Error::InvalidSettings(message.into())
}
