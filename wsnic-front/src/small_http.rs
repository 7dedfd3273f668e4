//! The little HTTP of the admin socket and of the monitor: one request on a connection, one answer.

use serde::Serialize;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Header lines of a request.
const MAX_HEADERS: usize = 32;

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Such as GET.
    pub method: String,
    /// With its query.
    pub target: String,
    /// As many bytes as Content-Length says.
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answer {
    /// A text with a status such as `404 Not Found`.
    pub fn text(status: &'static str, text: impl Into<Vec<u8>>) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body: text.into() }
    }

    /// Something of another kind.
    pub fn of_kind(kind: &'static str, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: "200 OK", kind, body: body.into() }
    }

    /// JSON that is made.
    pub fn made_json(body: Vec<u8>) -> Answer {
        Answer::of_kind("application/json", body)
    }

    /// JSON.
    pub fn json(value: &impl Serialize) -> Answer {
        match serde_json::to_vec(value) {
            Ok(body) => Answer::made_json(body),
            Err(error) => Answer::text("500 Internal Server Error", error.to_string()),
        }
    }

    /// It is done, and there is nothing to say.
    pub fn done() -> Answer {
        Answer::text("204 No Content", "")
    }

    /// Sends it, without its body to who asks by HEAD.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        head_only: bool,
    ) -> io::Result<()> {
        let Answer { status, kind, body } = self;
        let head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if !head_only {
            stream.write_all(body).await?;
        }
        stream.shutdown().await
    }
}

/// Reads a request of `most` bytes at most, head and body; or what is to be answered to something else.
///
/// # Errors
/// The connection's.
pub async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> io::Result<Result<Request, Answer>> {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes) {
            Err(()) => return Ok(Err(Answer::text("400 Bad Request", "this is not HTTP/1.1\n"))),
            Ok(Some(request)) => return Ok(Ok(request)),
            Ok(None) if bytes.len() >= most => {
                let text = format!("a request has {most} bytes at most\n");
                return Ok(Err(Answer::text("413 Content Too Large", text)));
            }
            Ok(None) => {}
        }
        let room = (most - bytes.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The request in `bytes`; None if it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<Request>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(()),
    };
    let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
    let length = request.headers.iter().find(|header| is_length(header.name));
    let length = length.map(|header| str::from_utf8(header.value).unwrap_or("?").trim().parse());
    let length: usize = length.transpose().map_err(drop)?.unwrap_or(0);
    let (Some(method), Some(target)) = (request.method, request.path) else { return Err(()) };
    // An empty body too, where it is empty.
    let body = bytes.get(head..).and_then(|rest| rest.get(..length));
    Ok(body.map(|body| Request {
        method: method.to_owned(),
        target: target.to_owned(),
        body: body.to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(bytes: &[u8], most: usize) -> io::Result<Result<Request, Answer>> {
        receive(&mut { bytes }, most).await
    }

    #[tokio::test]
    async fn a_request_is_whole_with_its_body() {
        let bytes = b"PUT /x?y HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcdef";
        let request = received(bytes, 100).await.unwrap().unwrap();
        assert_eq!(
            (&*request.method, &*request.target, &*request.body),
            ("PUT", "/x?y", &b"abc"[..])
        );
        for cut in 0..bytes.len() - 3 {
            assert!(received(&bytes[..cut], 100).await.is_err(), "{cut}");
        }
        let without = received(b"GET / HTTP/1.1\r\n\r\n", 100).await.unwrap().unwrap();
        assert!(without.body.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_request_or_too_long_is_answered() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100));
        let bodied =
            "PUT / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_owned() + &"x".repeat(100);
        for (bytes, status) in [
            ("\x16\x03\x01\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n", "400"),
            (&long, "413"),
            (&bodied, "413"),
        ] {
            let answer = received(bytes.as_bytes(), 64).await.unwrap().unwrap_err();
            assert!(answer.status.starts_with(status), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_says_how_long_it_is_and_that_it_is_the_last() {
        let mut sent = Vec::new();
        Answer::text("404 Not Found", "no").send(&mut sent, false).await.unwrap();
        let text = String::from_utf8(sent).unwrap();
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\nConnection: close\r\n"), "{text}");
        assert!(text.contains("Content-Length: 2\r\n") && text.ends_with("\r\n\r\nno"), "{text}");
        let mut sent = Vec::new();
        Answer::text("200 OK", "no").send(&mut sent, true).await.unwrap();
        assert!(sent.ends_with(b"\r\n\r\n"));
    }
}
