//! Certificates that tests make, and clients that check them.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Whom a client believes, as whom it asks, and who it is.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Vec<u8>,
    name: String,
    identity: Option<Identity>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Identity {
    /// Signed by itself, for these names.
    pub fn self_signed(names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "test");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// The two in one text, as wss_more_certs wants them.
    pub fn both(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }

    /// Writes both into one file.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.both()).expect("a file can be written");
    }
}

/// Signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its own certificate (PEM).
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a client of this name.
    pub fn client(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Trust {
    /// Believes this certificate (PEM), and asks for the server by `name`.
    pub fn new(certificate: &str, name: &str) -> Trust {
        Trust { roots: certificate.as_bytes().to_vec(), name: name.to_owned(), identity: None }
    }

    /// Shows a certificate when asked.
    #[must_use]
    pub fn as_client(mut self, identity: Identity) -> Trust {
        self.identity = Some(identity);
        self
    }

    /// A TLS handshake.
    ///
    /// # Errors
    /// The server's certificate is not believed, or the server refuses.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.name.clone()).map_err(io::Error::other)?;
        TlsConnector::from(self.config()?).connect(name, stream).await
    }

    /// What rustls wants to know.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.roots) {
            roots.add(certificate.expect("PEM")).map_err(io::Error::other)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
            }
        };
        Ok(Arc::new(config))
    }
}
