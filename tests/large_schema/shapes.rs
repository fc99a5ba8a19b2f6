//! Shapes that real schemas have, one by one: those that come back, and those that are refused,
//! each with what is said about it.

use std::fs;

use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use super::support::Shell;

const HEAD: &str = "\
version = 1
[repository]
url = \"file:repository\"
[store]
name = \"tracker\"
kind = \"postgres\"
unguarded = true
merges_at_once = 2
url = { env = \"DATABASE_URL\" }
[tenancy]
kind = \"account\"
column = \"account_id\"
";

const RESTORE: &str = "reinstate restore account:1 --at latest --confirm account:1";

/// A small database and a shell beside it.
struct Case {
    database: TestDatabase<'static>,
    shell: Shell,
}

impl Case {
    fn new(schema: &str, tenancy: &str) -> Self {
        let cluster = shared_cluster().expect("a PostgreSQL server");
        let database = cluster.fresh_database().expect("a database");
        database.psql(schema).expect("make tables");
        let shell = Shell::new(cluster).with_database(database.name());
        let path = shell.directory().join("reinstate.toml");
        fs::write(path, format!("{HEAD}{tenancy}")).expect("write a file");
        Self { database, shell }
    }

    /// A snapshot was taken, and the map agrees with all rows; then this happened.
    fn after(schema: &str, tenancy: &str, incident: &str) -> Self {
        let case = Self::new(schema, tenancy);
        case.shell
            .run("reinstate tenancy check && reinstate init && reinstate capture once");
        case.database.psql(incident).expect("run SQL");
        case
    }

    /// The command ends with this exit code and says this.
    #[track_caller]
    fn refuses(&self, command: &str, code: i32, says: &str) {
        let (found, text) = self.shell.fail(command);
        assert_eq!(found, Some(code), "{text}");
        assert!(text.contains(says), "no {says:?} in {text}");
    }

    /// Adds a line to the configuration's section [tenancy].
    fn add(&self, line: &str) {
        let path = self.shell.directory().join("reinstate.toml");
        let text = fs::read_to_string(&path).expect("read a file");
        let text = text.replacen("[tenancy]\n", &format!("[tenancy]\n{line}\n"), 1);
        fs::write(path, text).expect("write a file");
    }

    #[track_caller]
    fn restores(&self) {
        let text = self.shell.run(RESTORE);
        assert!(text.contains("1 of 1 tenant restored and proven"), "{text}");
    }
}

/// Agents have a queue, queues a policy, policies perhaps an agent: without that last key, there
/// is an order for all of them. Whether it is found depends on the names of the tables.
#[test]
fn a_ring_with_a_key_that_may_be_null_comes_back_whatever_its_names_are() {
    let ring = |agents: &str, keys: &str| {
        let schema = format!(
            "CREATE TABLE {agents} (id int PRIMARY KEY, account_id int NOT NULL, queue_id int NOT NULL);
             CREATE TABLE policies (id int PRIMARY KEY, account_id int NOT NULL, agent_id int);
             CREATE TABLE queues (id int PRIMARY KEY, policy_id int NOT NULL);
             INSERT INTO {agents} SELECT n, n % 3, n FROM generate_series(1, 9) n;
             INSERT INTO policies SELECT n, n % 3, n FROM generate_series(1, 9) n;
             INSERT INTO queues SELECT n, n FROM generate_series(1, 9) n;
             ALTER TABLE {agents} ADD FOREIGN KEY (queue_id) REFERENCES queues {keys};
             ALTER TABLE policies ADD FOREIGN KEY (agent_id) REFERENCES {agents} {keys};
             ALTER TABLE queues ADD FOREIGN KEY (policy_id) REFERENCES policies {keys};"
        );
        let incident = format!(
            "SET session_replication_role = replica;
             DELETE FROM {agents} WHERE account_id = 1;
             DELETE FROM policies WHERE account_id = 1;
             DELETE FROM queues WHERE id % 3 = 1;"
        );
        let tenancy = "[tenancy.table.queues]\nvia = \"policy_id -> policies.id\"\n";
        Case::after(&schema, tenancy, &incident)
    };
    ring("agents", "DEFERRABLE").restores();
    ring("workers", "").restores();
    ring("agents", "").restores();
}

/// A unique key that is never NULL tells rows apart as well as a primary one.
#[test]
fn a_changed_row_with_children_is_put_back_by_any_key_that_is_never_null() {
    let case = |key: &str, action: &str| {
        Case::after(
            &format!(
                "CREATE TABLE items (id int NOT NULL {key}, account_id int NOT NULL, name text);
                 CREATE TABLE parts (id int PRIMARY KEY,
                     item_id int NOT NULL REFERENCES items (id) {action});
                 INSERT INTO items SELECT n, n % 3, 'i' FROM generate_series(1, 9) n;
                 INSERT INTO parts SELECT n, n FROM generate_series(1, 9) n"
            ),
            "[tenancy.table.parts]\nvia = \"item_id -> items.id\"\n",
            "UPDATE items SET name = 'x' WHERE id = 4",
        )
    };
    case("PRIMARY KEY", "").restores();
    case("UNIQUE", "DEFERRABLE").restores();
    case("UNIQUE", "").restores();
    case("UNIQUE", "ON DELETE CASCADE").restores();
}

#[test]
fn rows_that_are_older_than_a_constraint_they_break_are_refused() {
    let issues = "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, other int);
         INSERT INTO issues SELECT n, n % 3, 50 + n FROM generate_series(1, 9) n;";
    let case = |constraint: &str| {
        let schema = format!("{issues} ALTER TABLE issues ADD {constraint} NOT VALID");
        Case::after(&schema, "", "DELETE FROM issues WHERE account_id = 1")
    };
    let foreign_key = case("FOREIGN KEY (other) REFERENCES issues");
    let says = "issues.other -> issues leads to rows that are gone (51, 54, 57), and neither are they in the \
                snapshot. Restore while the key is dropped, or leave the rows out";
    foreign_key.refuses(RESTORE, 1, says);
    let says = "constraint issues_other_check of issues is broken by rows of the snapshot";
    case("CHECK (other < 55)").refuses(RESTORE, 1, says);
}

#[test]
fn a_tree_of_which_only_the_roots_have_an_account_is_refused() {
    let case = Case::new(
        "CREATE TABLE folders (id int PRIMARY KEY, account_id int,
             parent_id int REFERENCES folders);
         INSERT INTO folders SELECT n, CASE WHEN n < 4 THEN n END, CASE WHEN n > 3 THEN n - 3 END
           FROM generate_series(1, 12) n",
        "[tenancy.table.folders]\nvia = \"parent_id -> folders.id\"\nunowned = \"shared\"\n",
    );
    let says = "table folders: its path to the tenant is a circle";
    case.refuses("reinstate tenancy check", 1, says);
    case.refuses("reinstate init", 1, says);
}

/// The map can say that these are as they should be. A restore goes on without them, but then it
/// cannot be taken back.
#[test]
fn a_user_who_remembers_an_account_and_an_account_of_an_account_fail_the_check() {
    let case = Case::new(
        "CREATE TABLE accounts (id int PRIMARY KEY, reseller_id int REFERENCES accounts);
         CREATE TABLE users (id int PRIMARY KEY,
             last_account_id int REFERENCES accounts ON DELETE SET NULL);
         INSERT INTO accounts VALUES (0, NULL), (1, 0), (2, 0);
         INSERT INTO users VALUES (1, 1), (2, 2)",
        "shared = [\"users\"]\n[tenancy.table.accounts]\ncolumn = \"id\"\n",
    );
    for says in [
        "2 rows of one tenant with a row of another: reseller_id -> accounts.id",
        "2 rows of everybody's with a row of a tenant's: last_account_id -> accounts.id",
    ] {
        case.refuses("reinstate tenancy check", 1, says);
    }
    case.add("crossing = [\"users.last_account_id\", \"accounts.reseller_id\"]");
    case.shell
        .run("reinstate tenancy check && reinstate init && reinstate capture once");
    let incident = "DELETE FROM accounts WHERE id = 1";
    case.database.psql(incident).expect("run SQL");
    let restored = case.shell.run(&format!("{RESTORE} --json"));
    let (_, job) = restored
        .split_once("\"type\":\"summary\",\"job\":\"")
        .expect("a job");
    let undo = format!("reinstate undo {} --confirm account:1", &job[..8]);
    let says = "foreign key users_last_account_id_fkey would change or delete rows of users, which \
                no tenant owns, when rows of accounts change";
    case.refuses(&undo, 1, says);
    let user = case
        .database
        .psql("SELECT last_account_id FROM users WHERE id = 1");
    assert_eq!(
        user.expect("read"),
        "",
        "nobody puts a row of everybody's back"
    );
}

/// Triggers and functions of an index run under the merge's own search path, and so find no table
/// and no function that is named without its schema, unless the map has a path for them.
#[test]
fn code_that_relies_on_the_search_path_needs_one() {
    let projects = "CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL, name text);
         INSERT INTO projects SELECT n, n % 3, 'P' || n FROM generate_series(1, 9) n;";
    let with_trigger = Case::after(
        &format!(
            "{projects}
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF (SELECT count(*) FROM projects) > 1000 THEN RAISE 'too many'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER look BEFORE INSERT ON projects FOR EACH ROW EXECUTE FUNCTION look()"
        ),
        "allowed_triggers = [\"projects.look\"]\n",
        "DELETE FROM projects WHERE account_id = 1",
    );
    let says = "create rows of projects: relation \"projects\" does not exist";
    with_trigger.refuses(RESTORE, 1, says);
    with_trigger.add("search_path = [\"public\"]");
    with_trigger.restores();
    let with_index = Case::after(
        &format!(
            "{projects}
             CREATE FUNCTION fold(t text) RETURNS text LANGUAGE sql IMMUTABLE
                 AS 'SELECT lower(t)';
             CREATE FUNCTION slug(t text) RETURNS text LANGUAGE sql IMMUTABLE
                 AS 'SELECT fold(t) || ''-x''';
             CREATE UNIQUE INDEX ON projects (slug(name))"
        ),
        "",
        "DELETE FROM projects WHERE account_id = 1",
    );
    let says = "read the rows of 1 in table projects: function fold(text) does not exist";
    with_index.refuses(RESTORE, 1, says);
    with_index.add("search_path = [\"public\"]");
    with_index.restores();
}

/// Where no foreign key guards them, rows outlive what they belonged to. They are nobody's then, and
/// the account's again when their parent is back.
#[test]
fn rows_that_an_incident_left_behind_come_back_with_what_they_belong_to() {
    let issues = "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;";
    let incident = "DELETE FROM issues WHERE account_id = 1";
    let comments = Case::after(
        &format!(
            "{issues} CREATE TABLE comments (id int PRIMARY KEY, on_type text NOT NULL,
                 on_id int NOT NULL);
             INSERT INTO comments SELECT n, 'Issue', n FROM generate_series(1, 9) n"
        ),
        "[tenancy.table.comments]
         one_of = [{ when = \"on_type = Issue\", via = \"on_id -> issues.id\" }]",
        incident,
    );
    comments.restores();
    let views = Case::after(
        &format!(
            "{issues} CREATE TABLE page_views (issue_id int, page text);
             INSERT INTO page_views SELECT n, 'p' FROM generate_series(1, 9) n"
        ),
        "[tenancy.table.page_views]\nvia = \"issue_id -> issues.id\"\nunowned = \"shared\"\n",
        incident,
    );
    views.restores();
}

/// The server itself takes the rows from the account, and gives them to everybody.
#[test]
fn rows_whose_only_way_the_server_set_to_null_are_in_the_way() {
    let case = Case::after(
        "CREATE TABLE pages (id int PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE feedback (id int PRIMARY KEY,
             page_id int REFERENCES pages ON DELETE SET NULL);
         INSERT INTO pages SELECT n, n % 3 FROM generate_series(1, 9) n;
         INSERT INTO feedback SELECT n, n FROM generate_series(1, 9) n",
        "[tenancy.table.feedback]\nvia = \"page_id -> pages.id\"\nunowned = \"shared\"\n",
        "DELETE FROM pages WHERE account_id = 1",
    );
    let conflicts =
        "the plan has 3 conflicts, in 1 of 1 tenants, and its policy is to fail on them";
    case.refuses(RESTORE, 5, conflicts);
    let forced = format!("{RESTORE} --on-conflict take-snapshot");
    case.refuses(&forced, 5, conflicts);
    let kept = format!("{RESTORE} --on-conflict keep-live");
    let says = "table feedback: 3 rows left out as conflicts";
    case.refuses(&kept, 4, says);
}

/// Kinds that are numbers are not seen to be kinds, but somebody has to say what the ids name.
#[test]
fn a_reference_by_the_number_of_a_kind_has_to_be_decided() {
    let case = Case::new(
        "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE reactions (id int PRIMARY KEY, subject_kind int NOT NULL,
             subject_id int NOT NULL);
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;
         INSERT INTO reactions SELECT n, 1, n FROM generate_series(1, 9) n",
        "",
    );
    let text = case.shell.run("reinstate tenancy suggest --count");
    let says =
        "# decide: reactions: 9 rows; no way to a tenant, and no tenant's row refers to it; but";
    assert!(text.contains(says), "{text}");
    assert!(text.contains("but subject_id"), "{text}");
    assert!(text.contains(" 1 table to be decided"), "{text}");
}

#[test]
fn a_unique_index_over_a_generated_column_is_looked_into() {
    let case = |index: &str| {
        Case::after(
            &format!(
                "CREATE TABLE people (id int PRIMARY KEY, account_id int NOT NULL, email text,
                     folded text GENERATED ALWAYS AS (lower(email)) STORED);
                 CREATE UNIQUE INDEX ON people {index};
                 INSERT INTO people SELECT n, n % 3, 'E' || n FROM generate_series(1, 9) n"
            ),
            "",
            "DELETE FROM people WHERE account_id = 1",
        )
    };
    case("(lower(email))").restores();
    for index in [
        "(folded)",
        "(account_id, folded) WHERE id > 0",
        "(email) WHERE folded <> ''",
    ] {
        case(index).restores();
    }
}

/// Foreign keys of generated columns do not count when tables are put in order.
#[test]
fn a_foreign_key_of_a_generated_column_does_not_put_its_parent_first() {
    let case = Case::after(
        "CREATE TABLE tasks (id int PRIMARY KEY, account_id int NOT NULL, number int NOT NULL,
             home int GENERATED ALWAYS AS (account_id) STORED);
         CREATE TABLE trips (account_id int, number int, PRIMARY KEY (account_id, number));
         INSERT INTO trips SELECT n % 3, n FROM generate_series(1, 9) n;
         INSERT INTO tasks SELECT n, n % 3, n FROM generate_series(1, 9) n;
         ALTER TABLE tasks ADD FOREIGN KEY (home, number) REFERENCES trips",
        "",
        "DELETE FROM tasks WHERE account_id = 1; DELETE FROM trips WHERE account_id = 1",
    );
    let says = "foreign key tasks_home_number_fkey of tasks to trips has a generated column, so \
                that the order in which their rows have to be written is not known: make it \
                DEFERRABLE, or restore while it is dropped";
    case.refuses(RESTORE, 1, says);
}

/// It writes no row but its own, but it writes another value into it: the map can keep it still.
#[test]
fn a_trigger_that_notes_the_time_of_a_change_has_to_keep_still() {
    let schema = "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, note text,
             updated_at timestamptz NOT NULL DEFAULT '2025-01-01');
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';
         CREATE TRIGGER touch BEFORE UPDATE ON issues FOR EACH ROW EXECUTE FUNCTION touch()";
    let change = "UPDATE issues SET note = 'x' WHERE account_id = 1";
    let says = "trigger or rule issues.touch would fire: if it changes no rows but the one it \
                fires for, and writes nothing else into it, add \"issues.touch\" to allowed_triggers";
    Case::after(schema, "", change).refuses(RESTORE, 1, says);
    let allowed = "allowed_triggers = [\"issues.touch\"]\n";
    let case = Case::after(schema, allowed, change);
    case.refuses(
        RESTORE,
        1,
        "table issues would hold 3 rows that are not the expected 3: a trigger or rule of the \
         store changed them, or somebody wrote in between",
    );
    let silenced = "silenced_triggers = [\"issues.touch\"]\n";
    let case = Case::after(schema, silenced, change);
    case.shell.run("reinstate guard install");
    case.restores();
    // It is the merge that silences it, not whoever restores.
    let quiet = "$DATABASE_URL&options=-c%20session_replication_role%3Dreplica";
    case.refuses(
        &format!("DATABASE_URL=\"{quiet}\" {RESTORE}"),
        1,
        "session_replication_role is replica, so that foreign keys and triggers would not fire",
    );
}

#[test]
fn a_row_of_everybodys_that_is_gone_keeps_the_whole_account_from_coming_back() {
    let case = Case::after(
        "CREATE TABLE plans (id int PRIMARY KEY);
         CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, plan_id int REFERENCES plans);
         INSERT INTO plans SELECT n FROM generate_series(1, 9) n;
         INSERT INTO issues SELECT n, n % 3, n FROM generate_series(1, 9) n",
        "shared = [\"plans\"]\n",
        "DELETE FROM issues WHERE account_id = 1; DELETE FROM plans WHERE id = 4",
    );
    let says = "issues.plan_id -> plans leads to rows that are gone (4): create them first";
    case.refuses(RESTORE, 1, says);
    let create = "INSERT INTO plans VALUES (4)";
    case.database.psql(create).expect("run SQL");
    case.restores();
}

/// The key is not NULL even for a while: one statement writes both tables.
#[test]
fn a_key_with_a_constraint_that_looks_for_null_comes_back() {
    for constraint in [
        "CHECK (head IS NOT NULL OR name = 'new')",
        "UNIQUE NULLS NOT DISTINCT (account_id, head)",
    ] {
        let case = |keys: &str| {
            Case::after(
                &format!(
                    "CREATE TABLE crews (id int PRIMARY KEY, account_id int NOT NULL, name text,
                         head int, CONSTRAINT has_head {constraint});
                     CREATE TABLE staff (id int PRIMARY KEY, account_id int NOT NULL,
                         crew_id int NOT NULL);
                     INSERT INTO crews SELECT n, n % 3, 'c', n FROM generate_series(1, 9) n;
                     INSERT INTO staff SELECT n, n % 3, n FROM generate_series(1, 9) n;
                     ALTER TABLE crews ADD FOREIGN KEY (head) REFERENCES staff {keys};
                     ALTER TABLE staff ADD FOREIGN KEY (crew_id) REFERENCES crews {keys}"
                ),
                "",
                "SET session_replication_role = replica;
                 DELETE FROM crews WHERE account_id = 1; DELETE FROM staff WHERE account_id = 1",
            )
        };
        case("DEFERRABLE").restores();
        case("").restores();
    }
}

/// A copy that somebody made in the middle of an incident, and a column that came since, are no
/// reason not to go back.
#[test]
fn a_column_or_a_table_that_came_after_the_snapshot_is_no_hindrance() {
    let case = |migration: &str| {
        Case::after(
            "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
             INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n",
            "",
            &format!("DELETE FROM issues WHERE account_id = 1; {migration}"),
        )
    };
    case("ALTER TABLE issues ADD note text").restores();
    case("CREATE TABLE copy AS SELECT * FROM issues").restores();
}

/// What hangs on a row that is left out is not left out with it.
#[test]
fn keeping_a_row_in_the_way_does_not_help_if_others_refer_to_it() {
    let case = Case::after(
        "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE steps (id int PRIMARY KEY, issue_id int NOT NULL REFERENCES issues);
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;
         INSERT INTO steps SELECT n, n FROM generate_series(1, 9) n",
        "[tenancy.table.steps]\nvia = \"issue_id -> issues.id\"\n",
        "DELETE FROM steps WHERE issue_id % 3 = 1; DELETE FROM issues WHERE account_id = 1;
         INSERT INTO issues VALUES (4, 2)",
    );
    let says = "next: plan again with --on-conflict keep-live to leave such rows out";
    case.refuses(RESTORE, 5, says);
    let says = "create rows of steps: the server changed 2 of 3 rows: the others are not the \
                tenant's, or a trigger or rule kept them";
    let kept = format!("{RESTORE} --on-conflict keep-live");
    case.refuses(&kept, 1, says);
}

/// Nobody knows which of its numbers a value came from: the sequence stays where it is.
#[test]
fn a_sequence_of_which_a_default_takes_a_multiple_is_left_alone() {
    let case = Case::after(
        "CREATE SEQUENCE numbers;
         CREATE TABLE orders (id int PRIMARY KEY DEFAULT nextval('numbers') * 100,
             account_id int NOT NULL);
         INSERT INTO orders (account_id) SELECT n % 3 FROM generate_series(1, 9) n",
        "",
        "DELETE FROM orders WHERE account_id = 1",
    );
    let text = case.shell.run(&format!("{RESTORE} --json"));
    assert!(text.contains("\"sequences_raised\":[]"), "{text}");
}
