//! Handing the front-end new certificates, keys and lists while it serves: `wsnic reload`, and SIGHUP
//! to `wsnic run`.

use crate::admin::{OrderError, order, order_now};
use std::process::ExitCode;
use wsnic_os::log::{chain, say};
use wsnic_os::material::{Material, MaterialError};
use wsnic_proto::Settings;

const ORDER: &str = "PUT /material";

/// Why the front-end goes on with what it has.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file cannot be read.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// The front-end does not take them.
    #[error(transparent)]
    Order(#[from] OrderError),
}

fn material(settings: &Settings) -> Result<Vec<u8>, ReloadError> {
    let material = Material::read(settings)?;
    // Texts and paths that were texts are always JSON.
    Ok(serde_json::to_vec(&material).unwrap_or_default())
}

/// Reads the files that `settings` name and hands them over.
///
/// # Errors
/// What has to be put right; the front-end goes on with what it has.
pub async fn hand_over(settings: &Settings) -> Result<(), ReloadError> {
    let body = material(settings)?;
    Ok(order(&settings.admin_socket, ORDER, &body).await.map(drop)?)
}

/// The command `wsnic reload`.
pub fn reload(settings: &Settings) -> ExitCode {
    let handed = material(settings)
        .and_then(|body| Ok(order_now(&settings.admin_socket, ORDER, &body).map(drop)?));
    match handed {
        Ok(()) => {
            say("wsnic has taken the new certificates and lists; sessions go on.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wsnic: not reloaded: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
