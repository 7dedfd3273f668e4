//! The page that browsers get: it says what this is and tests the server from inside the browser.
//!
//! Runs in the front-end, called by `session`. No I/O: page.html is part of the program, the answer
//! is the same for everybody, and nothing of a request is repeated in it.

/// Markup, one style and one script; read without inserting anything.
const PAGE: &str = include_str!("page.html");
/// SHA-256 of what stands between `<style>` and `</style>`, in base64 (CSP 3 §2.3.1).
const STYLE_HASH: &str = "EkHS+Cas/e42qQEhSTXGChGgqZ5iwQjeCqSG2Rr6nao=";
/// The same of `<script>`.
const SCRIPT_HASH: &str = "Ex3sdZx4LGrda0vhzIYoVypK6tDiZK2IH77pLEVYxaQ=";

/// The whole answer; the connection is closed behind it. HEAD: without the body.
pub fn response(head_only: bool) -> String {
    // The test connects to where the page came from. ws: and wss: are named because older browsers
    // do not count them as 'self'; no script but this one can run.
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nVary: Accept\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'sha256-{STYLE_HASH}'; \
         script-src 'sha256-{SCRIPT_HASH}'; connect-src 'self' ws: wss:; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\r\n{}",
        PAGE.len(),
        if head_only { "" } else { PAGE }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;
    use ring::digest::{SHA256, digest};

    /// What stands in the only element of this name.
    fn inside(element: &str) -> &'static str {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let (before, rest) = PAGE.split_once(&open).expect("the element is there");
        let (text, after) = rest.split_once(&close).expect("it has an end");
        for rest in [before, after] {
            assert!(!rest.contains(&format!("<{element}")), "one {element} only");
        }
        text
    }

    #[test]
    fn the_hashes_are_those_of_the_style_and_the_script() {
        let hash = |element| BASE64.encode(digest(&SHA256, inside(element).as_bytes()).as_ref());
        assert_eq!(STYLE_HASH, hash("style"), "put the new hash of page.html's style here");
        assert_eq!(SCRIPT_HASH, hash("script"), "put the new hash of page.html's script here");
    }

    #[test]
    fn the_policy_allows_nothing_but_what_the_page_has_and_its_server() {
        let answer = response(false);
        let policy = answer.lines().find_map(|line| line.strip_prefix("Content-Security-Policy: "));
        let policy: Vec<_> = policy.expect("a policy").split("; ").collect();
        assert!(policy.contains(&"default-src 'none'") && policy.contains(&"base-uri 'none'"));
        assert!(
            policy.contains(&"frame-ancestors 'none'") && policy.contains(&"form-action 'none'")
        );
        assert!(!policy.iter().any(|part| part.contains("unsafe") || part.contains('*')));
        assert!(answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"));
        assert!(answer.contains("\r\nReferrer-Policy: no-referrer\r\n"));
    }

    #[test]
    fn the_whole_answer_has_at_most_30_kb_and_a_head_has_no_body() {
        let (whole, head) = (response(false), response(true));
        assert!(whole.len() <= 30_000, "{} bytes", whole.len());
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"));
        assert_eq!(whole.strip_prefix(&head), Some(PAGE));
    }

    #[test]
    fn nothing_in_the_page_is_loaded_from_elsewhere_or_needs_more_than_the_policy_allows() {
        // Addresses in the page are texts; the script makes its own of where it came from.
        for address in ["http://", "https://", "src=", "url(", "@import", "innerHTML", "eval("] {
            assert!(!PAGE.contains(address), "{address}");
        }
        for attribute in [" style=", " onclick=", " onload="] {
            assert!(!PAGE.contains(attribute), "{attribute}");
        }
    }
}
