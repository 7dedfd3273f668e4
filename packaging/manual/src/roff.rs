//! A man page as text for man(7): headings, paragraphs, lists of terms, examples.
//!
//! In texts, what stands between backticks is printed bold and what stands between `<` and `>`
//! in italics, as man pages show what is typed as it stands and what is replaced.

use std::fmt::Write as _;

/// One page.
pub struct Page {
    /// What it describes.
    pub name: &'static str,
    /// Its chapter of the manual.
    pub section: u8,
    body: String,
}

impl Page {
    /// A page with its NAME.
    pub fn new(name: &'static str, section: u8, about: &str) -> Page {
        let body = format!(".SH NAME\n{} \\- {}\n", escape(name), escape(about));
        Page { name, section, body }
    }

    /// A heading.
    pub fn section(&mut self, heading: &str) -> &mut Page {
        self.line(&format!(".SH {}", quoted(&heading.to_uppercase())))
    }

    /// A heading below another.
    pub fn subsection(&mut self, heading: &str) -> &mut Page {
        self.line(&format!(".SS {}", quoted(heading)))
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) -> &mut Page {
        if !self.is_at_heading() {
            self.line(".PP");
        }
        self.paragraph(text)
    }

    /// A term, such as an option, and what it means.
    pub fn item(&mut self, term: &str, meaning: &str) -> &mut Page {
        self.line(".TP").line(&marked(term)).paragraph(meaning)
    }

    /// What else there is to say about the last term.
    pub fn more(&mut self, text: &str) -> &mut Page {
        self.line(".IP").paragraph(text)
    }

    /// Lines as they would be typed.
    pub fn example(&mut self, lines: &str) -> &mut Page {
        if !self.is_at_heading() {
            self.line(".PP");
        }
        self.line(".RS 4").line(".nf");
        for line in lines.lines() {
            self.line(&sheltered(&escape(line)));
        }
        self.line(".fi").line(".RE")
    }

    /// The page's file.
    pub fn render(&self, date: &str) -> String {
        let name = quoted(&self.name.to_uppercase());
        let (section, version) = (self.section, env!("CARGO_PKG_VERSION"));
        format!(".TH {name} {section} {date} \"wsnic {version}\"\n{}", self.body)
    }

    /// Sentences, each on a line of its own, as man(7) wants them.
    fn paragraph(&mut self, text: &str) -> &mut Page {
        for sentence in text.split_inclusive(['.', '?', ';']).fold(Vec::new(), join_words) {
            self.line(&sheltered(&marked(sentence.trim())));
        }
        self
    }

    fn line(&mut self, line: &str) -> &mut Page {
        // Writing into a String never fails.
        let _ = writeln!(self.body, "{line}");
        self
    }

    fn is_at_heading(&self) -> bool {
        self.body.lines().last().is_some_and(|line| line.starts_with(".S"))
    }
}

/// Puts together what was split inside a name, a number or an abbreviation: a sentence ends before
/// a blank only.
fn join_words(mut sentences: Vec<String>, piece: &str) -> Vec<String> {
    match sentences.last_mut() {
        Some(last) if !piece.starts_with(' ') => last.push_str(piece),
        _ => sentences.push(piece.to_owned()),
    }
    sentences
}

/// Backticks to bold, angle brackets to italics.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    for (index, piece) in text.split('`').enumerate() {
        if index % 2 == 1 {
            let _ = write!(marked, "\\fB{}\\fR", italic(piece, "\\fB"));
        } else {
            marked += &italic(piece, "\\fR");
        }
    }
    marked
}

fn italic(text: &str, after: &str) -> String {
    escape(text).replace('<', "\\fI").replace('>', after)
}

/// What roff would take for its own.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => escaped += "\\e",
            '-' => escaped += "\\-",
            '\'' => escaped += "\\(aq",
            '^' => escaped += "\\(ha",
            '~' => escaped += "\\(ti",
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A line that begins like a request is none.
fn sheltered(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paragraph(text: &str) -> String {
        let mut page = Page::new("p", 1, "a page");
        page.section("s").text(text);
        page.body.split_once(".SH \"S\"\n").unwrap().1.to_owned()
    }

    #[test]
    fn what_roff_would_take_for_its_own_is_escaped() {
        assert_eq!(paragraph(r"a\b -x it's"), "a\\eb \\-x it\\(aqs\n");
        assert_eq!(paragraph(".hidden"), "\\&.hidden\n");
    }

    #[test]
    fn sentences_stand_on_lines_of_their_own_and_names_stay_whole() {
        assert_eq!(
            paragraph("Read wsnic.conf first. Then 192.168.86.0/24."),
            "Read wsnic.conf first.\nThen 192.168.86.0/24.\n"
        );
    }

    #[test]
    fn what_is_typed_is_bold_and_what_is_replaced_italic() {
        assert_eq!(
            paragraph("`wsnic kick <ID>` ends <ID>"),
            "\\fBwsnic kick \\fIID\\fB\\fR ends \\fIID\\fR\n"
        );
    }
}
