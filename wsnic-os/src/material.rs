//! The files that the front-end needs and cannot open inside its sandbox: certificates, keys, lists of
//! who may come in.
//!
//! Read by the front-end while it still may, and for a reload by `wsnic run` or `wsnic reload`, which
//! hand them over by the admin socket as JSON.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use wsnic_proto::Settings;

/// Where systemd puts the files of LoadCredential=, under the names of the options.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Bytes of one file at most.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A file's text, which may be a secret and is shown by nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// For messages.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pem {
    /// The certificate with its chain.
    pub chain: Source,
    /// The private key.
    pub key: Source,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// wss_server_cert and wss_server_key.
    pub certificate: Option<Pem>,
    /// wss_more_certs.
    pub more_certificates: Vec<Pem>,
    /// wss_client_ca.
    pub client_ca: Option<Source>,
    /// token_file.
    pub tokens: Option<Source>,
    /// jwt_key_file.
    pub jwt_key: Option<Source>,
    /// basic_auth_file.
    pub basic_auth: Option<Source>,
}

/// A file cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} (option {option})", path.display())]
pub struct MaterialError {
    option: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Material {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// The first that cannot be read, and the option that names it.
    pub fn read(settings: &Settings) -> Result<Material, MaterialError> {
        let (server, door) = (&settings.server, &settings.door);
        let certificate = match &server.wss_cert {
            None => None,
            Some(path) => {
                let chain = read("wss_server_cert", path)?;
                let key = match &server.wss_key {
                    Some(path) => read("wss_server_key", path)?,
                    None => chain.clone(),
                };
                Some(Pem { chain, key })
            }
        };
        let more = server.wss_more_certs.iter().map(|path| {
            let chain = read("wss_more_certs", path)?;
            Ok(Pem { key: chain.clone(), chain })
        });
        let optional = |option, path: &Option<PathBuf>| {
            path.as_ref().map(|path| read(option, path)).transpose()
        };
        Ok(Material {
            certificate,
            more_certificates: more.collect::<Result<_, _>>()?,
            client_ca: optional("wss_client_ca", &server.wss_client_ca)?,
            tokens: optional("token_file", &door.token_file)?,
            jwt_key: optional("jwt_key_file", &door.jwt_key_file)?,
            basic_auth: optional("basic_auth_file", &door.basic_auth_file)?,
        })
    }
}

fn read(option: &'static str, path: &Path) -> Result<Source, MaterialError> {
    let given = std::env::var_os(CREDENTIALS).map(|dir| Path::new(&dir).join(option));
    let found = given.filter(|given| given.exists()).unwrap_or_else(|| path.to_owned());
    let text = read_text(&found);
    let text = text.map_err(|source| MaterialError { option, path: path.to_owned(), source })?;
    Ok(Source { path: path.to_owned(), text })
}

fn read_text(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 4 MiB"));
    }
    Ok(text)
}
