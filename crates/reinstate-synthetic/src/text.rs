//! Text that reads and compresses like what people type into an issue tracker.

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::row::below;

/// First names, some of them outside ASCII.
pub(crate) const FIRST_NAMES: [&str; 32] = [
    "Ada",
    "Am\u{e9}lie",
    "Ana",
    "Anton",
    "Beatriz",
    "Bj\u{f8}rn",
    "Carlos",
    "Chlo\u{e9}",
    "Dmitri",
    "Elif",
    "Emma",
    "Fatima",
    "Grace",
    "Hana",
    "Ingrid",
    "Ivan",
    "Jonas",
    "J\u{fc}rgen",
    "Karin",
    "\u{141}ukasz",
    "Li",
    "Maria",
    "Mehmet",
    "Noor",
    "Olga",
    "Pedro",
    "Priya",
    "Rosa",
    "Sven",
    "Tom\u{e1}s",
    "Yuki",
    "Zo\u{eb}",
];

/// Last names, some of them outside ASCII.
pub(crate) const LAST_NAMES: [&str; 32] = [
    "Almeida",
    "Andersen",
    "Baker",
    "Castro",
    "Demir",
    "Dubois",
    "Eriksson",
    "Fischer",
    "Garc\u{ed}a",
    "Haddad",
    "Ivanova",
    "Jansen",
    "Kaya",
    "Kowalski",
    "Larsen",
    "Martin",
    "M\u{fc}ller",
    "Nakamura",
    "Nguyen",
    "O'Brien",
    "Okafor",
    "Patel",
    "Peeters",
    "Petrov",
    "Rossi",
    "Sato",
    "Schmidt",
    "Silva",
    "Smith",
    "Svensson",
    "Yilmaz",
    "Zhang",
];

/// Frequent words first: a word's place decides how often it is drawn.
const WORDS: &str = "\
the to a and is in of it on for this when that not with we be as from if can but are at after \
have user page error should does an by or all no so get was works still now only same there \
which new more then fails change before time test also set will issue one order request what \
missing value customer open data returns file server seems click button add into because our \
them update please see list out table field default list again running instead first date name \
build report version could some since export search column filter wrong account browser \
import email invoice total response release crash retry timeout deploy session token login \
password expired cache stale query index slow memory limit upload download attachment preview \
thumbnail image scroll mobile layout header footer sidebar dropdown modal dialog form validation \
message notification webhook payload endpoint status code null empty string number integer decimal \
currency rounding discount tax shipping address street city region country language translation \
locale encoding unicode emoji timezone daylight saving calendar schedule reminder weekly monthly \
quarter budget approve reject comment mention assign priority milestone sprint backlog estimate \
blocked duplicate regression workaround hotfix branch merge rebase commit pipeline artifact \
container cluster node replica failover latency throughput metric alert threshold dashboard chart \
legend axis tooltip gradient contrast keyboard shortcut focus screen reader label placeholder \
paragraph margin padding overflow truncate ellipsis wrap align center stretch";

/// Endings that make four words of each.
const ENDINGS: [&str; 4] = ["", "", "s", "ing"];

/// The words, in one place for all rows of a store.
#[derive(Clone, Debug)]
pub(crate) struct Vocabulary {
    words: Vec<&'static str>,
}

impl Vocabulary {
    pub(crate) fn new() -> Self {
        Self {
            words: WORDS.split_ascii_whitespace().collect(),
        }
    }

    /// Appends one word.
    pub(crate) fn word(&self, random: &mut Pcg64Mcg, text: &mut Vec<u8>) {
        self.append_word(random.next_u64(), text);
    }

    /// Appends sentences until `text` has grown by `length` bytes exactly. Now and then a token
    /// stands among the words: a number, a hash, a path.
    pub(crate) fn prose(&self, random: &mut Pcg64Mcg, text: &mut Vec<u8>, length: usize) {
        let end = text.len() + length;
        let mut at_start = true;
        while text.len() < end {
            let draw = random.next_u64();
            let start = text.len();
            match draw >> 58 {
                0..=4 => push_hex(text, random.next_u64(), 8),
                5 => {
                    text.extend_from_slice(b"/api/");
                    self.append_word(draw >> 20, text);
                    text.push(b'/');
                    push_number(text, draw & 0xf_ffff);
                }
                7 => push_number(text, draw & 0xfff),
                6 => text.extend_from_slice(FIRST_NAMES[(draw & 31) as usize].as_bytes()),
                _ => self.append_word(draw, text),
            }
            if at_start {
                text[start].make_ascii_uppercase();
            }
            at_start = (draw >> 50) & 7 == 0;
            let gap: &[u8] = match (at_start, (draw >> 46) & 15) {
                (true, 0) => b".\n",
                (true, _) => b". ",
                (false, 0) => b", ",
                (false, _) => b" ",
            };
            text.extend_from_slice(gap);
        }
        truncate_to_characters(text, end);
    }

    fn append_word(&self, draw: u64, text: &mut Vec<u8>) {
        // The square of a uniform number: small places, that is frequent words, come up most.
        let uniform = draw & 0xffff;
        let skewed = (uniform * uniform) >> 16;
        let place = (skewed * self.words.len() as u64) >> 16;
        text.extend_from_slice(self.words[usize::try_from(place).unwrap_or(0)].as_bytes());
        if place > 40 {
            text.extend_from_slice(ENDINGS[((draw >> 16) & 3) as usize].as_bytes());
        }
    }
}

/// One of these.
pub(crate) fn pick<'a>(random: &mut Pcg64Mcg, choices: &[&'a str]) -> &'a str {
    let place = below(random, choices.len() as u64);
    choices[usize::try_from(place).unwrap_or(0)]
}

/// Appends a number in decimal.
pub(crate) fn push_number(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[start..]);
}

/// Appends the low `digit_count` hexadecimal digits of a number.
pub(crate) fn push_hex(text: &mut Vec<u8>, number: u64, digit_count: u32) {
    for place in (0..digit_count).rev() {
        let digit = (number >> (4 * place) & 15) as u8;
        text.push(if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        });
    }
}

/// Cuts at `end`, or fills with full stops what a cut inside a character leaves.
fn truncate_to_characters(text: &mut Vec<u8>, end: usize) {
    let mut cut = end;
    while text.get(cut).is_some_and(|byte| byte & 0xc0 == 0x80) {
        cut -= 1;
    }
    text.truncate(cut);
    text.resize(end, b'.');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prose_is_utf8_of_the_length_asked_for(seed: u64, length in 0_usize..500) {
            let mut text = b"before".to_vec();
            let mut random = Pcg64Mcg::new(u128::from(seed));
            Vocabulary::new().prose(&mut random, &mut text, length);
            prop_assert_eq!(text.len(), 6 + length);
            prop_assert!(std::str::from_utf8(&text).is_ok());
        }

        #[test]
        fn numbers_are_written_as_the_standard_library_does(number: u64) {
            let mut text = Vec::new();
            push_number(&mut text, number);
            push_hex(&mut text, number, 16);
            prop_assert_eq!(text, format!("{number}{number:016x}").into_bytes());
        }
    }
}
