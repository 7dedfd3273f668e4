//! What several of these tests do.

use wsnic_proto::conf::Layer;
use wsnic_proto::{ConfError, ConfFile, Facts, Settings, resolve};

/// Parses and resolves a file alone: the settings and the warnings as text.
pub(crate) fn outcome(text: &str, facts: &Facts) -> Result<(Settings, Vec<String>), ConfError> {
    let file = ConfFile::parse("wsnic.conf", text.as_bytes())?;
    let (settings, warnings) = resolve(&file, &Layer::new(), facts)?;
    Ok((settings, warnings.iter().map(ToString::to_string).collect()))
}
