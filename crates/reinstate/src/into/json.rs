//! JSON documents in which values at certain places are replaced, and not a byte else changes.

use std::borrow::Cow;

/// The most paths that one column can have.
pub(super) const PATHS_MAX: usize = 64;

/// One step of a path into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The member of this name.
    Member(String),
    /// Any member.
    AnyMember,
    /// The element at this place, from zero.
    Element(usize),
    /// Any element.
    AnyElement,
}

impl Step {
    /// Reads `$.a."b c"[*][0].*`; none if it is no such path.
    pub(super) fn parse_all(path: &str) -> Option<Vec<Self>> {
        let mut rest = path.strip_prefix('$')?;
        let mut steps = Vec::new();
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            let (step, after) = match first {
                '[' if rest.starts_with('"') => {
                    let (name, after) = quoted(rest)?;
                    (Self::Member(name), after.strip_prefix(']')?)
                }
                '[' => {
                    let (place, after) = rest.split_once(']')?;
                    let step = match place {
                        "*" => Self::AnyElement,
                        place => Self::Element(place.parse().ok()?),
                    };
                    (step, after)
                }
                '.' if rest.starts_with('"') => {
                    let (name, after) = quoted(rest)?;
                    (Self::Member(name), after)
                }
                '.' => {
                    let end = rest.find(['.', '[']).unwrap_or(rest.len());
                    let step = match &rest[..end] {
                        "" => return None,
                        "*" => Self::AnyMember,
                        name => Self::Member(name.to_owned()),
                    };
                    (step, &rest[end..])
                }
                _ => return None,
            };
            steps.push(step);
            rest = after;
        }
        Some(steps)
    }
}

/// A name between quotation marks, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = inner.find(|character| {
        let ends = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        ends
    })?;
    let name = decode(&inner.as_bytes()[..end])?.into_owned();
    Some((name, &inner[end + 1..]))
}

/// A value at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'t> {
    /// A number, as it is written.
    Number(&'t str),
    /// What a text says.
    Text(Cow<'t, str>),
}

impl Open {
    const fn new(is_object: bool, paths: u64) -> Self {
        Self {
            is_object,
            paths,
            place: 0,
            wants_name: is_object,
        }
    }

    /// Goes to the next member or element.
    const fn go_on(&mut self) {
        self.place += 1;
        self.wants_name = self.is_object;
    }
}

impl Scalar<'_> {
    /// What it says.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Number(text) => text,
            Self::Text(text) => text,
        }
    }
}

/// An open object or array.
struct Open {
    is_object: bool,
    /// Paths that lead into it.
    paths: u64,
    /// In an array: the place of the current element.
    place: usize,
    /// In an object: whether a name comes next.
    wants_name: bool,
}

/// Copies a document. Of every number and text at the end of a path, `replace` is asked with the
/// path's place in the list and says what to write instead, if anything. None: the document is none.
pub(super) fn rewrite(
    document: &str,
    paths: &[&[Step]],
    mut replace: impl FnMut(usize, Scalar<'_>) -> Option<String>,
    output: &mut Vec<u8>,
) -> Option<()> {
    let bytes = document.as_bytes();
    let every = u64::MAX >> (PATHS_MAX - paths.len().clamp(1, PATHS_MAX));
    let mut open: Vec<Open> = Vec::new();
    // Paths that lead to the value that comes next.
    let mut here = if paths.is_empty() { 0 } else { every };
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let end = match byte {
            b'{' | b'[' => {
                open.push(Open::new(byte == b'{', here));
                at + 1
            }
            b'}' | b']' => {
                open.pop()?;
                at + 1
            }
            b',' => {
                open.last_mut()?.go_on();
                at + 1
            }
            b':' | b' ' | b'\t' | b'\n' | b'\r' => at + 1,
            b'"' => string_end(bytes, at)?,
            _ => word_end(bytes, at),
        };
        let depth = open.len();
        let token = &bytes[at..end];
        at = end;
        if let Some(inside) = open.last_mut() {
            if inside.wants_name && byte == b'"' {
                let name = decode(&token[1..token.len() - 1])?;
                inside.wants_name = false;
                here = leading(inside.paths, paths, depth - 1, |step| match step {
                    Step::Member(member) => *member == name,
                    step => *step == Step::AnyMember,
                });
            } else if !inside.is_object && matches!(byte, b'[' | b',') {
                let place = inside.place;
                here = leading(inside.paths, paths, depth - 1, |step| match step {
                    Step::Element(element) => *element == place,
                    step => *step == Step::AnyElement,
                });
                output.extend_from_slice(token);
                continue;
            } else if is_scalar(byte) {
                write_scalar(token, here, paths, depth, &mut replace, output)?;
                continue;
            }
        } else if is_scalar(byte) {
            write_scalar(token, here, paths, depth, &mut replace, output)?;
            continue;
        }
        output.extend_from_slice(token);
    }
    open.is_empty().then_some(())
}

/// Whether a token that starts like this is a number or a text.
const fn is_scalar(byte: u8) -> bool {
    matches!(byte, b'"' | b'-' | b'0'..=b'9')
}

fn write_scalar(
    token: &[u8],
    here: u64,
    paths: &[&[Step]],
    depth: usize,
    replace: &mut impl FnMut(usize, Scalar<'_>) -> Option<String>,
    output: &mut Vec<u8>,
) -> Option<()> {
    let mut ending = (0..paths.len()).filter(|place| {
        let leads_here = here >> place & 1 == 1;
        leads_here && paths[*place].len() == depth
    });
    let Some(place) = ending.next() else {
        output.extend_from_slice(token);
        return Some(());
    };
    let is_text = token[0] == b'"';
    let scalar = if is_text {
        Scalar::Text(decode(&token[1..token.len() - 1])?)
    } else {
        Scalar::Number(std::str::from_utf8(token).ok()?)
    };
    match replace(place, scalar) {
        None => output.extend_from_slice(token),
        // What is no number cannot stand where one stood.
        Some(new) if !is_text && new.parse::<i64>().is_ok() => {
            output.extend_from_slice(new.as_bytes());
        }
        Some(new) => encode(&new, output),
    }
    Some(())
}

/// Those of some paths of which the step at this depth goes on.
fn leading(among: u64, paths: &[&[Step]], depth: usize, goes_on: impl Fn(&Step) -> bool) -> u64 {
    let mut leading = 0;
    for (place, path) in paths.iter().enumerate() {
        let is_among = among >> place & 1 == 1;
        if is_among && path.get(depth).is_some_and(&goes_on) {
            leading |= 1 << place;
        }
    }
    leading
}

/// Where the number or word that starts here ends.
fn word_end(bytes: &[u8], start: usize) -> usize {
    let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
    let length = bytes[start..].iter().position(is_end);
    length.map_or(bytes.len(), |length| start + length)
}

/// Where the text that starts here ends.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// What stands between quotation marks.
fn decode(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            decoded.push(character);
            continue;
        }
        decoded.push(match characters.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => match four_digits(&mut characters)? {
                high @ 0xd800..=0xdbff => {
                    let is_pair = characters.next()? == '\\' && characters.next()? == 'u';
                    let low = four_digits(&mut characters).filter(|_| is_pair)?;
                    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)?
                }
                code => char::from_u32(code)?,
            },
            itself => itself,
        });
    }
    Some(Cow::Owned(decoded))
}

fn four_digits(characters: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |sum, _| {
        Some(sum << 4 | characters.next()?.to_digit(16)?)
    })
}

/// A text with its quotation marks, as PostgreSQL writes it in `jsonb`.
fn encode(text: &str, output: &mut Vec<u8>) {
    output.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => output.extend([b'\\', byte]),
            b'\n' => output.extend(b"\\n"),
            b'\r' => output.extend(b"\\r"),
            b'\t' => output.extend(b"\\t"),
            8 => output.extend(b"\\b"),
            12 => output.extend(b"\\f"),
            0..32 => output.extend(format!("\\u{byte:04x}").bytes()),
            byte => output.push(byte),
        }
    }
    output.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adds a hundred to numbers, and an exclamation mark to texts.
    fn rewritten(document: &str, paths: &[&str]) -> Option<String> {
        let paths: Vec<Vec<Step>> = paths
            .iter()
            .map(|path| Step::parse_all(path).unwrap())
            .collect();
        let paths: Vec<&[Step]> = paths.iter().map(Vec::as_slice).collect();
        let mut output = Vec::new();
        let replace = |_, scalar: Scalar<'_>| match scalar {
            Scalar::Number(number) => Some((number.parse::<i64>().ok()? + 100).to_string()),
            Scalar::Text(text) => Some(format!("{text}!")),
        };
        rewrite(document, &paths, replace, &mut output)?;
        Some(String::from_utf8(output).unwrap())
    }

    #[track_caller]
    fn check(document: &str, paths: &[&str], expected: &str) {
        assert_eq!(rewritten(document, paths).as_deref(), Some(expected));
    }

    #[test]
    fn only_values_at_the_end_of_a_path_change() {
        let document = r#"{"a": 1, "b": {"a": 2, "c": [3, {"a": 4}, [5]]}, "d": [6, 7], "e": "x"}"#;
        check(document, &[], document);
        check(
            document,
            &["$.a"],
            &document.replace("\"a\": 1", "\"a\": 101"),
        );
        check(document, &["$.b.a"], &document.replace('2', "102"));
        check(document, &["$.b.c[0]"], &document.replace('3', "103"));
        check(document, &["$.b.c[*]"], &document.replace('3', "103"));
        check(document, &["$.b.c[1].a"], &document.replace('4', "104"));
        check(document, &["$.b.c[*][*]"], &document.replace('5', "105"));
        let both = document
            .replace("6, 7", "106, 107")
            .replace("\"x\"", "\"x!\"");
        check(document, &["$.d[*]", "$.e", "$.nothing"], &both);
        check("[1, [2], 3]", &["$[*]"], "[101, [2], 103]");
        check("7", &["$"], "107");
        check("\"7\"", &["$"], "\"7!\"");
        check(
            "{\"a\": {\"b\": 1}, \"c\": {\"b\": 2}}",
            &["$.*.b"],
            "{\"a\": {\"b\": 101}, \"c\": {\"b\": 102}}",
        );
        check("{}", &["$.a"], "{}");
        check("[]", &["$[0]"], "[]");
        check("{\"a\": [], \"b\": 1}", &["$.b"], "{\"a\": [], \"b\": 101}");
        check(
            "[true, null, false, 1.5, 1e3]",
            &["$[*]"],
            "[true, null, false, 1.5, 1e3]",
        );
    }

    #[test]
    fn names_and_texts_may_be_escaped() {
        check(r#"{"a\"b": 1}"#, &[r#"$."a\"b""#], r#"{"a\"b": 101}"#);
        check(r#"{"a b": 1}"#, &[r#"$["a b"]"#], r#"{"a b": 101}"#);
        check(
            r#"{"\u0061": "\ud83d\ude00\n\u0001"}"#,
            &["$.a"],
            "{\"\\u0061\": \"\u{1f600}\\n\\u0001!\"}",
        );
        check(
            r#"{"a": "},{\"a\": 1", "b": 2}"#,
            &["$.b"],
            r#"{"a": "},{\"a\": 1", "b": 102}"#,
        );
    }

    #[test]
    fn what_is_no_path_is_not_read_as_one() {
        for path in [
            "", "a", "$a", "$.", "$..a", "$[", "$[x]", "$[\"a\"", "$.\"a", "$.a[-1]",
        ] {
            assert_eq!(Step::parse_all(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_copied_or_refused(text: String) {
            if let Some(copied) = rewritten(&text, &["$.nowhere.at.all"]) {
                prop_assert_eq!(copied, text);
            }
        }

        #[test]
        fn a_text_reads_back(text: String) {
            let mut encoded = Vec::new();
            encode(&text, &mut encoded);
            let inner = &encoded[1..encoded.len() - 1];
            prop_assert_eq!(decode(inner).unwrap(), text);
        }
    }
}
