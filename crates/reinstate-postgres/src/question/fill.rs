//! The place of a tenant's id in a statement that an operator wrote.

/// What stands for the tenant's id in a statement.
const PLACE: &str = "$1";

/// A statement with the tenant's id in its place: `$1`, and not the beginning of `$10`. Comments
/// and names are left as they are.
///
/// `None` if `$1` stands inside of quotes of any kind. The id is a quoted text, and tenants may have
/// chosen it: inside of other quotes it would end them, and the rest of it would be SQL.
pub(super) fn fill(statement: &str, id: &str) -> Option<String> {
    let mut filled = String::with_capacity(statement.len() + id.len());
    let mut rest = statement;
    // Texts that follow on a text with escapes go on with it.
    let mut has_escapes = false;
    while !rest.is_empty() {
        let (token, length) = next_token(rest, has_escapes);
        let (text, after) = rest.split_at(length);
        match token {
            Token::Place => filled.push_str(id),
            Token::Quoted { .. } if holds_place(text) => return None,
            Token::Quoted { .. } | Token::Space | Token::Other => filled.push_str(text),
        }
        has_escapes = match token {
            Token::Quoted { has_escapes } => has_escapes,
            Token::Space => has_escapes,
            Token::Place | Token::Other => false,
        };
        rest = after;
    }
    Some(filled)
}

#[derive(Debug, Clone, Copy)]
enum Token {
    Place,
    /// A text, or a name in quotes. With a quote in it that is doubled it is two tokens here.
    Quoted {
        has_escapes: bool,
    },
    /// Or a comment.
    Space,
    Other,
}

/// What a statement that is not empty begins with, and how long that is.
fn next_token(rest: &str, has_escapes: bool) -> (Token, usize) {
    let bytes = rest.as_bytes();
    let plain = Token::Quoted { has_escapes: false };
    match (bytes[0], bytes.get(1)) {
        (b'-', Some(b'-')) => {
            let line = rest.find(['\n', '\r']);
            (Token::Space, line.unwrap_or(rest.len()))
        }
        (b'/', Some(b'*')) => (Token::Space, comment(bytes)),
        (b'\'', _) => (Token::Quoted { has_escapes }, quoted(bytes, 1, has_escapes)),
        (b'e' | b'E', Some(b'\'')) => (Token::Quoted { has_escapes: true }, quoted(bytes, 2, true)),
        (b'"', _) => (plain, quoted(bytes, 1, false)),
        (b'$', Some(b'0'..=b'9')) => {
            let length = 1 + count(&bytes[1..], |byte| byte.is_ascii_digit());
            let is_place = &rest[..length] == PLACE;
            let token = if is_place { Token::Place } else { Token::Other };
            (token, length)
        }
        (b'$', _) => match dollars(rest) {
            Some(length) => (plain, length),
            None => (Token::Other, 1),
        },
        (first, _) if is_name(first) && !first.is_ascii_digit() => {
            let length = count(bytes, |byte| is_name(byte) || byte == b'$');
            (Token::Other, length)
        }
        (first, _) if first.is_ascii_whitespace() || first == b'\x0b' => (Token::Space, 1),
        _ => (Token::Other, 1),
    }
}

/// Whether a byte is part of names. Those that are not ASCII all are.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn count(bytes: &[u8], is_meant: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is_meant(**byte)).count()
}

/// The length of a comment, with those that are in it.
fn comment(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => depth += 1,
            (b'*', Some(b'/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of something quoted, whose first quote stands before `start`.
fn quoted(bytes: &[u8], start: usize, has_escapes: bool) -> usize {
    let quote = bytes[start - 1];
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if has_escapes => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of a text between `$tag$` and `$tag$`.
fn dollars(rest: &str) -> Option<usize> {
    let tag = 2 + count(&rest.as_bytes()[1..], is_name);
    let start = rest.get(..tag).filter(|start| start.ends_with('$'))?;
    let end = rest[tag..].find(start);
    Some(end.map_or(rest.len(), |end| tag + end + tag))
}

fn holds_place(text: &str) -> bool {
    let mut places = text.match_indices(PLACE);
    places.any(|(at, _)| {
        let next = text.as_bytes().get(at + PLACE.len());
        !next.is_some_and(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stands_where_its_place_is_and_nowhere_else() {
        for (statement, filled) in [
            ("SELECT $1", Some("SELECT 'it''s'")),
            ("$1=$1::int+$10", Some("'it''s'='it''s'::int+$10")),
            ("SELECT '$2', '$10', a$1", Some("SELECT '$2', '$10', a$1")),
            ("'it''s' || $1", Some("'it''s' || 'it''s'")),
            (r"E'\'' || $1", Some(r"E'\'' || 'it''s'")),
            (r"E'' || '\' || $1", Some(r"E'' || '\' || 'it''s'")),
            ("$$'$$ || $1", Some("$$'$$ || 'it''s'")),
            (
                "1 /* /*'*/ $1 */ -- \"\n, $1",
                Some("1 /* /*'*/ $1 */ -- \"\n, 'it''s'"),
            ),
            (
                "gr\u{f6}\u{df}e$a$ || $1",
                Some("gr\u{f6}\u{df}e$a$ || 'it''s'"),
            ),
            ("'$1'", None),
            ("'''$1'", None),
            (r"E'\'$1'", None),
            ("e'' -- x\n '\\'$1'", None),
            ("\"a\"\"$1\"", None),
            ("$\u{e4}$ $$ ' $1 $\u{e4}$", None),
            ("'$1", None),
        ] {
            assert_eq!(fill(statement, "'it''s'").as_deref(), filled, "{statement}");
        }
    }
}
