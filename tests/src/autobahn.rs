//! The Autobahn testsuite as a client, with an echo on the bridge.

use crate::frames::{EXPERIMENTAL, Mac, ethernet, ethertype};
use crate::{Lab, RawGuest, source_dir, target_dir};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Who echoes; tests/autobahn/ethernet.py has the same.
const ECHO: Mac = [0x02, 0x86, 0xec, 0, 0, 2];

/// What has become of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Autobahn's word for how the server behaved: OK, NON-STRICT, INFORMATIONAL, FAILED, …
    pub behavior: String,
    /// The same for how the connection ended.
    pub close: String,
}

impl Outcome {
    /// Whether nothing is wrong. NON-STRICT is within the standard.
    pub fn is_good(&self) -> bool {
        let good = |word: &str, others: &[&str]| word == "OK" || others.contains(&word);
        good(&self.behavior, &["NON-STRICT", "INFORMATIONAL"])
            && good(&self.close, &["INFORMATIONAL"])
    }
}

/// The folder with the testsuite, made by tests/autobahn/build.sh where it is not there yet (which
/// needs the network).
pub fn built() -> PathBuf {
    let out = target_dir().join("autobahn");
    let script = source_dir().join("autobahn/build.sh");
    let status = Command::new(&script).arg(&out).stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{} failed", script.display());
    out
}

/// Plays cases, such as `1.*` without `1.1.8`, at the server behind `url`, on whose network a guest
/// echoes; the outcome of each.
///
/// # Panics
/// When the testsuite does not run.
pub fn play(lab: &Lab, url: &str, cases: &[&str], without: &[&str]) -> BTreeMap<String, Outcome> {
    let list = |cases: &[&str]| {
        cases.iter().map(|case| format!("{case:?}")).collect::<Vec<_>>().join(", ")
    };
    let (spec, reports) = (lab.file("spec.json"), lab.file("reports"));
    let text = format!(
        "{{\"options\": {{\"failByDrop\": false}}, \"outdir\": {reports:?}, \"servers\": \
         [{{\"agent\": \"wsnic\", \"url\": {url:?}, \"options\": {{\"version\": 18}}}}], \
         \"cases\": [{}], \"exclude-cases\": [{}], \"exclude-agent-cases\": {{}}}}\n",
        list(cases),
        list(without)
    );
    std::fs::write(&spec, text).expect("a file can be written");
    let mut echo = RawGuest::connect(lab);
    echo.mac = ECHO;
    // The bridge learns where it is.
    echo.shout("here");
    let stop = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| echo_until(&stop, &mut echo));
        // An error in it would let it wait for ever.
        let mut command = Command::new("timeout");
        command.arg("900").arg(built().join("py"));
        command.arg(source_dir().join("autobahn/ethernet.py"));
        command.args(["-m", "fuzzingclient", "-s"]).arg(&spec).current_dir(lab.file(""));
        let output = lab.srv.output(&mut command);
        stop.store(true, Ordering::Relaxed);
        output
    });
    echo.leave();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let index = std::fs::read_to_string(reports.join("index.json"));
    let index = index.unwrap_or_else(|error| panic!("no report ({error}):\n{printed}"));
    std::fs::remove_dir_all(reports).expect("a folder of the test");
    std::fs::remove_file(spec).expect("a file of the test");
    let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    let word = |value: &serde_json::Value| value.as_str().expect("a word").to_owned();
    let cases = index["wsnic"].as_object().expect("cases").iter();
    cases
        .map(|(case, outcome)| {
            let (behavior, close) = (word(&outcome["behavior"]), word(&outcome["behaviorClose"]));
            (case.clone(), Outcome { behavior, close })
        })
        .collect()
}

/// Sends each frame for it back to where it came from.
fn echo_until(stop: &AtomicBool, echo: &mut RawGuest) {
    while !stop.load(Ordering::Relaxed) {
        let Some(frame) = echo.receive_within(Duration::from_millis(200)) else { continue };
        if frame.starts_with(&ECHO) && ethertype(&frame) == EXPERIMENTAL {
            let from = crate::frames::source(&frame);
            echo.send(&ethernet(from, ECHO, EXPERIMENTAL, &frame[14..]));
        }
    }
}
