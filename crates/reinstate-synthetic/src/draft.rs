//! One row that is being written, column by column.

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::row::{DAY_COUNT, RowSource, Scratch, below};
use crate::table::OWNED_TABLES;
use crate::text::{FIRST_NAMES, LAST_NAMES, pick, push_hex, push_number};

/// The shortest and the longest body of a tenant-owned row, in bytes.
const BODY_BYTES: (u64, u64) = (170, 390);

pub(crate) const CURRENCY_COUNT: u32 = 12;
const CURRENCIES: [&str; CURRENCY_COUNT as usize] = [
    "AUD", "BRL", "CAD", "CHF", "CNY", "EUR", "GBP", "INR", "JPY", "NOK", "PLN", "USD",
];
pub(crate) const PLAN_COUNT: u32 = 4;
const PLANS: [&str; PLAN_COUNT as usize] = ["Free", "Team", "Business", "Enterprise"];
const STATUSES: [&str; 6] = [
    "open",
    "triaged",
    "in_progress",
    "in_review",
    "done",
    "rejected",
];
const LABELS: [&str; 8] = [
    "bug", "ui", "api", "perf", "docs", "infra", "security", "ux",
];
const ACTIONS: [&str; 6] = [
    "viewed",
    "edited",
    "assigned",
    "labelled",
    "moved",
    "mentioned",
];
const ENVIRONMENTS: [&str; 6] = [
    "production, eu-west",
    "staging",
    "Windows 11\tEdge 126",
    "C:\\Program Files\\Tracker\\agent.exe",
    "macOS 14, Safari",
    "Android 15",
];

/// One row that is being written.
pub(crate) struct Draft<'a> {
    pub(crate) source: &'a RowSource,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) random: Pcg64Mcg,
    pub(crate) tenant: u32,
    pub(crate) counts: [u32; OWNED_TABLES],
}

impl Draft<'_> {
    pub(crate) fn currency(&mut self, row: u32) {
        let code = CURRENCIES[row as usize % CURRENCIES.len()];
        self.scratch.key.clear();
        self.scratch.key.push_bytes(code.as_bytes());
        self.scratch.builder.start(self.scratch.key.as_bytes());
        self.text(code);
        self.compose(|draft, text| draft.source.vocabulary.word(&mut draft.random, text));
        self.text(if code == "JPY" { "0" } else { "2" });
    }

    pub(crate) fn plan(&mut self, row: u32) {
        self.start_with_id(u64::from(row) + 1);
        self.text(PLANS[row as usize % PLANS.len()]);
        self.compose(|draft, text| {
            text.extend_from_slice(b"{\"sso\": ");
            text.extend_from_slice(if row > 1 { b"true" } else { b"false" });
            text.extend_from_slice(b", \"seats\": ");
            push_number(text, below(&mut draft.random, 500) + 1);
            text.push(b'}');
        });
    }

    pub(crate) fn project(&mut self, row: u32) {
        self.start_with_id(self.source.id(self.tenant, row));
        self.account();
        let code = pick(&mut self.random, &CURRENCIES);
        self.text(code);
        self.prose(12, 40);
        self.time(row, self.counts[0], 0);
        self.compose(|draft, text| {
            text.extend_from_slice(b"{\"color\": \"#");
            push_hex(text, draft.random.next_u64(), 6);
            text.extend_from_slice(b"\", \"labels\": ");
            draft.labels(text);
            text.extend_from_slice(b", \"private\": false}");
        });
        if self.chance(8) {
            self.prose_up_to(BODY_BYTES.0, BODY_BYTES.0 + 30);
        } else {
            self.prose_up_to(BODY_BYTES.0, BODY_BYTES.1);
        }
    }

    pub(crate) fn member(&mut self, row: u32) {
        self.start_with_id(self.source.id(self.tenant, row));
        self.account();
        let plan = below(&mut self.random, PLANS.len() as u64) + 1;
        self.number(plan);
        let first = pick(&mut self.random, &FIRST_NAMES);
        let last = pick(&mut self.random, &LAST_NAMES);
        self.compose(|draft, text| {
            draft.source.vocabulary.word(&mut draft.random, text);
            text.push(b'.');
            push_number(text, u64::from(row));
            text.extend_from_slice(b"@account-");
            push_number(text, u64::from(draft.tenant) + 1);
            text.extend_from_slice(b".example");
        });
        self.compose(|_, text| {
            text.extend_from_slice(first.as_bytes());
            text.push(b' ');
            text.extend_from_slice(last.as_bytes());
        });
        self.time(row, self.counts[1], 0);
        if self.chance(4) {
            self.scratch.builder.push(None);
        } else {
            self.time(row, self.counts[1], 30);
        }
        self.compose(|draft, text| {
            let theme = pick(&mut draft.random, &["dark", "light", "system"]);
            text.extend_from_slice(b"{\"mail\": true, \"theme\": \"");
            text.extend_from_slice(theme.as_bytes());
            text.extend_from_slice(b"\", \"columns\": ");
            draft.labels(text);
            text.push(b'}');
        });
        self.prose_up_to(BODY_BYTES.0, BODY_BYTES.1 - 60);
    }

    pub(crate) fn issue(&mut self, row: u32) {
        self.start_with_id(self.source.id(self.tenant, row));
        self.account();
        self.parent(0);
        self.parent(1);
        if self.chance(3) {
            self.scratch.builder.push(None);
        } else {
            self.parent(1);
        }
        self.number(u64::from(row) + 1);
        let status = pick(&mut self.random, &STATUSES);
        self.text(status);
        if self.chance(2) {
            self.scratch.builder.push(None);
        } else {
            let day = below(&mut self.random, DAY_COUNT as u64);
            let date = self.source.days[usize::try_from(day).unwrap_or(0)];
            self.scratch.builder.push(Some(&date));
        }
        self.time(row, self.counts[2], 0);
        self.time(row, self.counts[2], 20);
        self.compose(Self::labels);
        match below(&mut self.random, 8) {
            0..=2 => self.scratch.builder.push(None),
            3..=5 => self.text(""),
            _ => {
                let environment = pick(&mut self.random, &ENVIRONMENTS);
                self.text(environment);
            }
        }
        self.prose(18, 56);
        self.prose_up_to(BODY_BYTES.0 + 60, BODY_BYTES.1);
    }

    pub(crate) fn comment(&mut self, row: u32) {
        self.start_with_id(self.source.id(self.tenant, row));
        let issues = u64::from(self.counts[2]);
        // Comments follow their issues, give or take a few: what is written together lies together.
        let near = u64::from(row) * issues / u64::from(self.counts[3].max(1));
        let back = below(&mut self.random, 5).min(near);
        self.number(
            self.source
                .id(self.tenant, u32::try_from(near - back).unwrap_or(0)),
        );
        self.parent(1);
        self.time(row, self.counts[3], 0);
        if self.chance(5) {
            self.time(row, self.counts[3], 3);
        } else {
            self.scratch.builder.push(None);
        }
        if self.chance(3) {
            self.compose(|draft, text| {
                text.extend_from_slice(b"{\"heart\": ");
                push_number(text, below(&mut draft.random, 9) + 1);
                text.extend_from_slice(b", \"thumbs_up\": ");
                push_number(text, below(&mut draft.random, 30));
                text.push(b'}');
            });
        } else {
            self.scratch.builder.push(None);
        }
        self.prose_up_to(BODY_BYTES.0, BODY_BYTES.1);
    }

    pub(crate) fn activity(&mut self, row: u32) {
        self.scratch.builder.start(&[]);
        self.account();
        self.parent(2);
        if self.chance(10) {
            self.scratch.builder.push(None);
        } else {
            self.parent(1);
        }
        let action = pick(&mut self.random, &ACTIONS);
        self.text(action);
        self.time(row, self.counts[4], 0);
        self.compose(|draft, text| {
            let address = draft.random.next_u64();
            text.extend_from_slice(b"10.");
            push_number(text, address & 0xff);
            text.push(b'.');
            push_number(text, address >> 8 & 0xff);
            text.push(b'.');
            push_number(text, address >> 16 & 0xff);
        });
        self.compose(|draft, text| {
            text.extend_from_slice(b"{\"ids\": [");
            push_number(text, below(&mut draft.random, 100_000));
            text.extend_from_slice(b"], \"note\": \"");
            let start = text.len();
            let length = 40 + usize::try_from(below(&mut draft.random, 140)).unwrap_or(0);
            draft
                .source
                .vocabulary
                .prose(&mut draft.random, text, length);
            for byte in &mut text[start..] {
                // A line break would have to be escaped in JSON.
                *byte = if *byte == b'\n' { b' ' } else { *byte };
            }
            text.extend_from_slice(b"\", \"request\": \"");
            push_hex(text, draft.random.next_u64(), 16);
            text.extend_from_slice(b"\"}");
        });
    }

    fn start_with_id(&mut self, id: u64) {
        self.scratch.key.clear();
        self.scratch.key.push_integer(id.cast_signed());
        self.scratch.builder.start(self.scratch.key.as_bytes());
        self.number(id);
    }

    fn account(&mut self) {
        self.number(u64::from(self.tenant) + 1);
    }

    /// The id of one of the tenant's rows in an owned table.
    fn parent(&mut self, owned_index: usize) {
        let row = below(&mut self.random, u64::from(self.counts[owned_index]));
        self.number(self.source.id(self.tenant, u32::try_from(row).unwrap_or(0)));
    }

    fn number(&mut self, number: u64) {
        self.compose(|_, text| push_number(text, number));
    }

    fn text(&mut self, text: &str) {
        self.scratch.builder.push(Some(text.as_bytes()));
    }

    fn prose(&mut self, low: u64, high: u64) {
        let length = usize::try_from(low + below(&mut self.random, high - low)).unwrap_or(0);
        self.compose(|draft, text| {
            draft
                .source
                .vocabulary
                .prose(&mut draft.random, text, length);
        });
    }

    /// Text that makes the row's body between `low` and `high` bytes long, if it is shorter yet.
    fn prose_up_to(&mut self, low: u64, high: u64) {
        let target = low + below(&mut self.random, high - low);
        let length = target.saturating_sub(self.scratch.builder.row().body().len() as u64 + 2);
        self.compose(|draft, text| {
            let length = usize::try_from(length).unwrap_or(0);
            draft
                .source
                .vocabulary
                .prose(&mut draft.random, text, length);
        });
    }

    /// A moment in the order of row numbers, some days later if `delay_days_max` says so.
    fn time(&mut self, row: u32, row_count: u32, delay_days_max: u64) {
        let span = DAY_COUNT as u64 * 86_400;
        let step = span / u64::from(row_count.max(1));
        let delay = below(&mut self.random, delay_days_max * 86_400 + 1);
        let second = u64::from(row) * step + below(&mut self.random, step.max(1)) + delay;
        let second = second.min(span - 1);
        // Never a multiple of ten, so that the store's canonical text always has six digits.
        let micros = below(&mut self.random, 100_000) * 10 + 1 + below(&mut self.random, 9);
        let day = usize::try_from(second / 86_400).unwrap_or(0);
        let mut text = *b"yyyy-mm-dd hh:mm:ss.ffffff+00";
        text[..10].copy_from_slice(&self.source.days[day]);
        let clock = second % 86_400;
        for (place, value) in [(11, clock / 3600), (14, clock / 60 % 60), (17, clock % 60)] {
            text[place] = b'0' + (value / 10 % 10) as u8;
            text[place + 1] = b'0' + (value % 10) as u8;
        }
        let mut rest = micros;
        for place in (20..26).rev() {
            text[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.scratch.builder.push(Some(&text));
    }

    fn labels(&mut self, text: &mut Vec<u8>) {
        text.push(b'[');
        for place in 0..below(&mut self.random, 4) {
            if place > 0 {
                text.extend_from_slice(b", ");
            }
            text.push(b'"');
            text.extend_from_slice(pick(&mut self.random, &LABELS).as_bytes());
            text.push(b'"');
        }
        text.push(b']');
    }

    /// True once in `one_in`.
    fn chance(&mut self, one_in: u64) -> bool {
        below(&mut self.random, one_in) == 0
    }

    /// Pushes a column that `write` puts together in the text buffer.
    fn compose(&mut self, write: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        let mut text = std::mem::take(&mut self.scratch.text);
        text.clear();
        write(self, &mut text);
        self.scratch.builder.push(Some(&text));
        self.scratch.text = text;
    }
}
