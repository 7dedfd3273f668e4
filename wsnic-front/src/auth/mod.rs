//! Who may come in: one valid proof of any kind that is asked for, and a page's origin.
//!
//! Runs in the front-end, called by `session` with what a head shows. Pure: texts of files and the
//! time are arguments; passwords alone are judged elsewhere, by the thread of [`passwords`], because
//! that takes long. Nothing in here is allowed to tell a client why it is refused, to put a secret
//! into a log or error, or to answer sooner for a name that there is not.
//!
//! Theory of operation: every text that can be a token is hashed and looked up, and up to two that
//! can be signed tokens are verified, whatever was found before. Which proof was good is decided
//! when all have been looked at.

pub mod basic;
pub mod jwt;
pub mod names;
pub mod passwords;
pub mod shown;
pub mod tokens;

pub use names::{NameEntered, Names};
pub use passwords::Passwords;
pub use shown::Shown;

use basic::{Accounts, AccountsError, Question};
use jwt::{KeyError, SignedKey};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokens::Tokens;
use wsnic_proto::settings::{ClientCert, Door, NetworkName};
use wsnic_proto::token_file::{Limits, OwnRate, TokenFileError};

/// The text of a file, read before the sandbox or handed over at a reload.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// For messages only.
    pub path: PathBuf,
    /// All of it.
    pub text: Vec<u8>,
}

/// Without the text.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The files that the options of the door name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// Of `token_file`.
    pub tokens: Option<Source>,
    /// Of `jwt_key_file`.
    pub jwt: Option<Source>,
    /// Of `basic_auth_file`.
    pub basic: Option<Source>,
}

/// Why the door cannot be kept as the operator wants it.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A line of the file of tokens.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The key of signed tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A line of the file of passwords.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// A file is set and was not handed over.
    #[error("{option}={} was not read: restart wsnic", path.display())]
    Unread {
        /// Which option.
        option: &'static str,
        /// Its file.
        path: PathBuf,
    },
}

/// How somebody proved that he may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// He needed no proof.
    Anyone,
    /// A line of the file of tokens.
    Token,
    /// A signed token (JWT).
    Signed,
    /// Name and password.
    Password,
    /// A client certificate.
    Certificate,
}

/// Who came in, and what applies to him beyond the general settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// For the log; letters, digits and signs without control characters.
    pub name: Option<String>,
    /// By which proof.
    pub method: Method,
    /// The network that the proof is for; None: for any that is not private.
    pub network: Option<NetworkName>,
    /// His clients at the same time, for [`Names`]; 0: no limit.
    pub max_clients: u32,
    /// What he may send, where it differs from the general rate.
    pub rate_up: OwnRate,
    /// What he may get, where it differs from the general rate.
    pub rate_down: OwnRate,
    /// How long his session may last, where it differs from the general limit.
    pub session_time: Option<Duration>,
    /// When his proof is worth nothing any more, leeway included; None: never.
    pub expires: Option<SystemTime>,
}

impl Identity {
    /// For the log: who, and by which proof.
    pub fn label(&self) -> String {
        let by = match self.method {
            Method::Anyone => return "anyone".to_owned(),
            Method::Token => "token",
            Method::Signed => "signed token",
            Method::Password => "password",
            Method::Certificate => "certificate",
        };
        format!("{} ({by})", self.name.as_deref().unwrap_or("unnamed"))
    }

    /// Somebody to whom the general settings apply.
    pub(crate) fn plain(name: Option<String>, method: Method) -> Identity {
        Identity::limited(name, method, None, Limits::default(), None)
    }

    fn limited(
        name: Option<String>,
        method: Method,
        network: Option<NetworkName>,
        limits: Limits,
        expires: Option<SystemTime>,
    ) -> Identity {
        Identity {
            name,
            method,
            network,
            max_clients: limits.max_clients,
            rate_up: limits.rate_up,
            rate_down: limits.rate_down,
            session_time: limits.session_time.map(|seconds| Duration::from_secs(seconds.into())),
            expires,
        }
    }
}

/// Why somebody is refused. For log and counters: clients all get the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// A page of an origin that is not on the list.
    #[error("a page of this origin may not connect (allowed_origins)")]
    Origin,
    /// No proof at all.
    #[error("no token, password or certificate was shown")]
    NoProof,
    /// Something was shown and nobody knows it.
    #[error("the token is unknown")]
    Unknown,
    /// The signature does not fit the key.
    #[error("the signature of the token is wrong")]
    Signature,
    /// Signed by the right key, with claims that do not fit.
    #[error("the claims of the signed token do not fit: {0}")]
    Claims(&'static str),
    /// Known, and its time is over.
    #[error("the token has expired")]
    Expired,
    /// Signed, for a time that has not come.
    #[error("the signed token is not valid yet")]
    TooEarly,
    /// The network is private, or the proof is for another, or there is no such network.
    #[error("not for this network")]
    Network,
    /// Name and password do not fit, or there is no such name.
    #[error("name or password is wrong")]
    Password,
    /// Too many passwords are to be judged at the moment.
    #[error("too many passwords wait to be checked")]
    Busy,
}

impl Why {
    /// True if this may have been a guess: it counts towards a ban. False where the one who is
    /// refused holds a secret of the operator's, shows none, or is not at fault.
    pub fn is_wrong_proof(self) -> bool {
        matches!(self, Why::Unknown | Why::Signature | Why::Password)
    }
}

/// What is to be done with somebody.
#[derive(Debug)]
pub enum Judgement {
    /// He comes in.
    Welcome(Identity),
    /// He does not.
    Refused(Why),
    /// Ask [`Passwords::ask`].
    AskPassword(Question),
}

/// What proofs are good, and for whom.
pub struct Auth {
    origins: Vec<String>,
    tokens: Option<Tokens>,
    signed: Option<SignedKey>,
    accounts: Option<Arc<Accounts>>,
    certificates: Option<ClientCert>,
}

/// Without names and keys.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("origins", &self.origins)
            .field("tokens", &self.tokens.is_some())
            .field("signed", &self.signed.is_some())
            .field("accounts", &self.accounts.is_some())
            .field("certificates", &self.certificates)
            .finish()
    }
}

impl Auth {
    /// The door as the settings want it, by the texts of the files that they name. `client_cert` is
    /// None where clients are not asked for certificates.
    ///
    /// # Errors
    /// The first file that is wrong or missing, and what to do.
    pub fn new(
        sources: &Sources,
        door: &Door,
        client_cert: Option<ClientCert>,
    ) -> Result<Auth, AuthError> {
        let tokens = text_of("token_file", door.token_file.as_ref(), sources.tokens.as_ref())?;
        let jwt = text_of("jwt_key_file", door.jwt_key_file.as_ref(), sources.jwt.as_ref())?;
        let basic =
            text_of("basic_auth_file", door.basic_auth_file.as_ref(), sources.basic.as_ref())?;
        Ok(Auth {
            origins: door.allowed_origins.clone(),
            tokens: tokens.map(Tokens::new).transpose()?,
            signed: jwt.map(SignedKey::new).transpose()?,
            accounts: basic.map(Accounts::new).transpose()?.map(Arc::new),
            certificates: client_cert,
        })
    }

    /// The name of a token for a network that there is not, and the network's.
    pub fn lost(&self, is_network: impl Fn(&NetworkName) -> bool) -> Option<(&str, &NetworkName)> {
        self.tokens.iter().flat_map(Tokens::networks).find(|(_, network)| !is_network(network))
    }

    /// True if somebody without a proof may come in, whatever page he is on.
    pub fn is_open(&self) -> bool {
        self.tokens.is_none()
            && self.signed.is_none()
            && self.accounts.is_none()
            && self.certificates != Some(ClientCert::Required)
    }

    /// Looks at what somebody shows of himself.
    pub fn judge(&self, shown: &Shown, now: SystemTime) -> Judgement {
        // All is looked at before anything is decided, so that refusals cost the same.
        let origin = self.origin(shown);
        let proof = self.proof(shown, now);
        let question = match &self.accounts {
            Some(accounts) => shown.basic().map(|basic| accounts.question(basic)),
            None => None,
        };
        if origin == Origin::Refused {
            return Judgement::Refused(Why::Origin);
        }
        match (proof, question) {
            (Ok(identity), _) => Judgement::Welcome(identity),
            (Err(_), Some(question)) => Judgement::AskPassword(question),
            (Err(_), None) if self.is_open() && origin == Origin::Allowed => {
                Judgement::Welcome(Identity::plain(None, Method::Anyone))
            }
            (Err(why), None) => Judgement::Refused(why),
        }
    }

    /// Whoever needs no password.
    fn proof(&self, shown: &Shown, now: SystemTime) -> Result<Identity, Why> {
        let secrets = shown.secrets();
        let token = self.tokens.as_ref().map(|tokens| tokens.judge(&secrets, now));
        let signed = self.signed.as_ref().map(|key| key.judge(&secrets, now));
        let certificate = shown.certificate.as_ref().filter(|_| self.certificates.is_some());
        if let Some(subject) = certificate {
            return Ok(Identity::plain(Some(shown::printable(subject)), Method::Certificate));
        }
        // What says most about why, if none is good: an expired token was once a good one, and a
        // wrong signature is at least a signed token.
        let mut reason = Why::NoProof;
        for judged in [token, signed].into_iter().flatten() {
            match judged {
                Ok(identity) => return Ok(identity),
                Err(Why::NoProof) => {}
                Err(Why::Unknown) if reason != Why::NoProof => {}
                Err(why) => reason = why,
            }
        }
        // A wrong attempt at a password is one too where there are none.
        let shows_basic = shown.basic().is_some() && !self.is_open();
        Err(if reason == Why::NoProof && shows_basic { Why::Password } else { reason })
    }

    fn origin(&self, shown: &Shown) -> Origin {
        if self.origins.is_empty() {
            return Origin::Allowed;
        }
        match &shown.origin {
            None => Origin::Program,
            Some(origin) => {
                let origin = shown::normal_origin(origin);
                let found = origin != "null" && self.origins.contains(&origin);
                if found { Origin::Allowed } else { Origin::Refused }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A page on the list, or there is none.
    Allowed,
    /// A program, which needs a proof.
    Program,
    /// Some other page.
    Refused,
}

/// The text of an option's file, if the option is set.
fn text_of<'a>(
    option: &'static str,
    path: Option<&PathBuf>,
    source: Option<&'a Source>,
) -> Result<Option<&'a Source>, AuthError> {
    match (path, source) {
        (None, _) => Ok(None),
        (Some(_), Some(source)) => Ok(Some(source)),
        (Some(path), None) => Err(AuthError::Unread { option, path: path.clone() }),
    }
}

#[cfg(test)]
mod tests;
