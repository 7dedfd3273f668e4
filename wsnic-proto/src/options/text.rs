//! Texts made from the table: the annotated wsnic.conf and the README's table.

use super::{Group, OPTIONS, OptionSpec, Place};

/// Columns of the annotated wsnic.conf.
const TEMPLATE_WIDTH: usize = 78;

/// The annotated wsnic.conf: every option with its manual, commented out with its default.
///
/// As it stands, and also with every option's line uncommented, it sets nothing but the defaults.
pub fn template() -> String {
    let mut text = comment(
        "wsnic.conf: option=value, one a line. Lines that begin with # or ; are comments. Every \
         option stands here with its default, remove the # to change it. An empty value is the \
         same as none. Lists are separated by commas or blanks. \"wsnic check\" tells what is \
         wrong with a file.",
    );
    for group in Group::ALL {
        text += &format!("\n## {}\n", group.title());
        for spec in in_manual(group) {
            text += "\n";
            text += &comment(&manual(spec));
            text += &format!("#{}={}\n", spec.name, spec.default);
        }
    }
    text
}

/// The README's table of options in Markdown.
pub fn markdown_table() -> String {
    let mut text =
        String::from("| wsnic.conf | command line | default | meaning |\n|---|---|---|---|\n");
    for spec in Group::ALL.into_iter().flat_map(in_manual) {
        let short = spec.short.map_or_else(String::new, |short| format!(", `-{short}`"));
        let default =
            if spec.default.is_empty() { String::new() } else { format!("`{}`", spec.default) };
        let switches = spec.switches.iter().map(|switch| switch.name);
        let former: Vec<String> =
            spec.aliases.iter().copied().chain(switches).map(|name| format!("`{name}`")).collect();
        let mut notes = manual(spec);
        if !former.is_empty() {
            notes += &format!(" Also: {}.", former.join(", "));
        }
        if let Some(variable) = spec.env {
            notes += &format!(" In a container: `{variable}`.");
        }
        text +=
            &format!("| `{}` | `--{}`{short} | {default} | {notes} |\n", spec.name, spec.long());
    }
    text
}

/// Help and allowed values.
fn manual(spec: &OptionSpec) -> String {
    format!("{} {}", spec.help, spec.kind.manual()).trim_end().to_owned()
}

fn in_manual(group: Group) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |spec| spec.group == group && spec.place == Place::Everywhere)
}

fn comment(text: &str) -> String {
    wrap(text, TEMPLATE_WIDTH - 2).lines().map(|line| format!("# {line}\n")).collect()
}

/// `text` broken at blanks into lines of at most `width` characters, longer words excepted.
pub fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > width {
            wrapped.push('\n');
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += len;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_blanks_and_long_words_stay_whole() {
        assert_eq!(wrap("a bb  ccc dddddd e", 4), "a bb\nccc\ndddddd\ne");
        assert_eq!(wrap("", 4), "");
    }

    #[test]
    fn the_template_fits_a_terminal_and_names_every_option() {
        let text = template();
        assert!(text.lines().all(|line| line.chars().count() <= TEMPLATE_WIDTH));
        for spec in OPTIONS.iter().filter(|spec| spec.place == Place::Everywhere) {
            assert!(text.contains(&format!("\n#{}={}\n", spec.name, spec.default)));
        }
    }

    #[test]
    fn the_table_has_one_row_of_four_cells_per_option() {
        let text = markdown_table();
        let rows = OPTIONS.iter().filter(|spec| spec.place == Place::Everywhere).count();
        assert_eq!(text.lines().count(), rows + 2);
        assert!(text.lines().all(|line| line.matches('|').count() == 5), "{text}");
    }
}
