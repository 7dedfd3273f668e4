//! From a URL to a WebSocket: TCP, TLS, handshake, and why not.

use super::report::Trouble;
use data_encoding::BASE64;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, InvalidMessage,
    RootCertStore, SignatureScheme,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Each of TCP, TLS and the handshake has this long.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest frame of the largest MTU, and some.
const MAX_MESSAGE: usize = 128 * 1024;

/// What a WebSocket runs over.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

/// A WebSocket that is open.
pub type Socket = WebSocketStream<Box<dyn Transport>>;

/// What somebody wants to test.
pub struct Target {
    /// ws:// or wss://, as it was typed.
    pub url: String,
    /// The same as it may be shown.
    pub shown: String,
    /// Certificates to believe instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether any certificate will do.
    pub is_insecure: bool,
    /// The page to come from.
    pub origin: Option<String>,
}

/// A server that can be connected to, again and again.
pub struct Line {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    request: Request,
    /// `host:port`.
    pub place: String,
}

impl Target {
    /// Understands the URL and reads certificates.
    ///
    /// # Errors
    /// What is wrong with them, and what to write instead.
    pub fn prepare(&self) -> Result<Line, String> {
        let wrong = |why: &str| {
            format!(
                "{} is no address to join: {why}; give one such as ws://127.0.0.1:8086/",
                self.shown
            )
        };
        let uri: Uri = self.url.parse().map_err(|_| wrong("it is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(wrong("it does not begin with ws:// or wss://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if bare.is_empty() {
            return Err(wrong("it names no host"));
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let place = format!("{}:{port}", authority.host());
        let (user, host) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.as_str()),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let address = format!("ws://{host}{path}");
        let mut request =
            address.into_client_request().map_err(|error| wrong(&error.to_string()))?;
        let headers = request.headers_mut();
        if let Some(user) = user {
            let value = format!("Basic {}", BASE64.encode(user.as_bytes()));
            let value =
                HeaderValue::from_str(&value).map_err(|_| wrong("its name and password"))?;
            headers.insert("Authorization", value);
        }
        if let Some(origin) = &self.origin {
            let value =
                HeaderValue::from_str(origin).map_err(|_| format!("{origin:?} is no origin"))?;
            headers.insert("Origin", value);
        }
        let tls = match is_tls {
            false => None,
            true => {
                let name = match bare.parse::<IpAddr>() {
                    Ok(ip) => ServerName::from(ip),
                    Err(_) => ServerName::try_from(bare.clone())
                        .map_err(|_| wrong("a certificate cannot be for its host"))?,
                };
                Some((Arc::new(self.trust()?), name))
            }
        };
        Ok(Line { host: bare, port, tls, request, place })
    }

    fn trust(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        if self.is_insecure {
            let any = Arc::new(Anybody(provider));
            return Ok(builder
                .dangerous()
                .with_custom_certificate_verifier(any)
                .with_no_client_auth());
        }
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                let unfit = |why: &dyn std::fmt::Display| {
                    format!("cannot use --ca {}: {why}", path.display())
                };
                let pem = fs::read(path).map_err(|error| unfit(&error))?;
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|error| unfit(&error))?;
                    roots.add(certificate).map_err(|error| unfit(&error))?;
                }
                if roots.is_empty() {
                    return Err(unfit(&"there is no certificate in it"));
                }
            }
            // Those that cannot be read are as good as not there: then no server is believed, and
            // that is said.
            None => drop(
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
            ),
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

impl Line {
    /// Connects.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub async fn connect(&self) -> Result<Socket, Trouble> {
        let tcp = timeout(LIMIT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let tcp = tcp.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let tcp = tcp.map_err(|error| self.unreachable(&error))?;
        // A ping is to be measured, not the kernel's patience. An error would only make it slower.
        let _ = tcp.set_nodelay(true);
        let transport: Box<dyn Transport> = match &self.tls {
            None => Box::new(tcp),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let tls = timeout(LIMIT, connector.connect(name.clone(), tcp)).await;
                let tls = tls.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                Box::new(tls.map_err(|error| self.no_tls(&error))?)
            }
        };
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = 16 * 1024;
        config.max_message_size = Some(MAX_MESSAGE);
        config.max_frame_size = Some(MAX_MESSAGE);
        let shake = client_async_with_config(self.request.clone(), transport, Some(config));
        match timeout(LIMIT, shake).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => Err(self.not_let_in(&error)),
            Err(_) => Err(Trouble::new(
                format!("{} takes connections and does not answer", self.place),
                "wsnic may be stopped or overloaded, or something else listens there: see its log",
            )),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Trouble {
        let place = &self.place;
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Trouble::new(
                format!("nothing listens at {place}"),
                "start wsnic (`wsnic run`, or systemctl start wsnic-front.socket), or name the right \
                 URL; from another machine it has to listen there: ws_server_addr=0.0.0.0",
            ),
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Trouble::new(
                format!("{place} cannot be reached ({error})"),
                "see whether the machine is up and its firewall lets this port in",
            ),
            _ => Trouble::new(
                format!("cannot connect to {place} ({error})"),
                "see whether the host's name is right",
            ),
        }
    }

    fn no_tls(&self, error: &io::Error) -> Trouble {
        let place = &self.place;
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<TlsError>());
        let what = format!("no TLS with {place} ({error})");
        match tls {
            Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => Trouble::new(
                format!("nobody known has signed the certificate of {place}"),
                "name it with --ca FILE if it is your own (`wsnic cert`), or test with --insecure; browsers have to be told too",
            ),
            Some(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Trouble::new(
                format!("the certificate of {place} is for other names ({error})"),
                "use a name of the certificate in the URL, or make one for this name: `wsnic cert NAME`",
            ),
            Some(TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Trouble::new(
                format!("the certificate of {place} is out of date"),
                "get a new one, and tell the server by `wsnic reload`",
            ),
            Some(TlsError::InvalidCertificate(_)) => {
                Trouble::new(what, "the certificate is unfit; `wsnic cert` makes another")
            }
            Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => Trouble::new(
                format!("{place} does not speak TLS"),
                "use ws:// with this port; wss:// has a port of its own (wss_server_port) and needs wss_server_cert",
            ),
            _ => Trouble::new(what, "the server's log says more"),
        }
    }

    fn not_let_in(&self, error: &Error) -> Trouble {
        let place = &self.place;
        let Error::Http(response) = error else {
            let hung_up = format!("{place} hangs up without an answer ({error})");
            let remedy = match self.tls {
                None => {
                    "it may speak TLS only: try wss://; or this address is banned (`wsnic status`, \
                     `wsnic pardon`), or connects too often (handshake_rate)"
                }
                Some(_) => {
                    "it may want a client's certificate (wss_client_ca), which this test has not; or \
                     this address is banned (`wsnic status`, `wsnic pardon`)"
                }
            };
            return Trouble::new(hung_up, remedy);
        };
        let status = response.status();
        let said = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let said = said.strip_prefix("wsnic: ").and_then(|said| said.lines().next());
        let what = match said {
            Some(said) => format!("the answer is {status}: {said}"),
            None => format!("the answer is {status}"),
        };
        Trouble::new(what, advice(status))
    }
}

/// What to do about an answer that is not 101, whether wsnic gave it or a proxy before it.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => {
            "a proof is missing, wrong or out of date: add ?token=… to the URL (`wsnic token`), or \
             USER:PASSWORD@; with allowed_origins name a page, such as --origin https://example.org; \
             the server's log says which"
        }
        404 => {
            "the path leads to no network: name one of wsnic.conf, such as ws://HOST/NAME, or set strict_paths=no"
        }
        400 | 426 => "a proxy before wsnic does not pass WebSockets on: see docs/proxies.md",
        429 => {
            "this address or token has as many clients as it may: see max_clients_per_address and `wsnic sessions`"
        }
        502 | 504 => {
            "the proxy does not reach wsnic: is it running, and is the proxy's target right?"
        }
        503 => {
            "no port is free (max_clients), or the helper is not there: see `wsnic status` and the log"
        }
        200..=299 => "something else than wsnic listens there: see the port in the URL",
        300..=399 => {
            "the server sends clients elsewhere: use that URL, or take the redirection out of the proxy"
        }
        _ => "see the log of the server, and of a proxy before it",
    }
}

/// Believes whatever certificate comes, but not that somebody else has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why an open connection ended, in words.
pub fn ended(error: &Error, close: Option<u16>) -> Trouble {
    let what = match (close, error) {
        (Some(code), _) => format!("the server ended the connection (code {code})"),
        (None, tungstenite::Error::ConnectionClosed) => {
            "the server ended the connection".to_owned()
        }
        (None, error) => format!("the connection broke ({error})"),
    };
    Trouble::new(
        what,
        match close {
            Some(1001) => "the server is stopping or starts anew: test again",
            Some(1002) => {
                "the network has framing=stream, for clients such as container2wasm, which this test \
                 does not speak: test another network"
            }
            Some(1008) => {
                "the session's time was over, or an operator ended it: see session_time, idle_time and the log"
            }
            Some(1011) => "the guest's port was lost: the log says why",
            _ => "see the server's log; a proxy before it may have a time limit of its own",
        },
    )
}
