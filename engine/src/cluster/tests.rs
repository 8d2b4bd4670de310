//! A private cluster is made, found again, adopted and stopped; each test with a real server of its own.

use tokio::time::Instant;

use super::*;

/// A data directory that the server's user can reach, as root has to run it as another one.
fn data_dir() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

/// What psql answers; it is what an operator would use on the printed address.
async fn ask(cluster: &Cluster, sql: &str) -> String {
    let psql = cluster.binaries.path("psql");
    let output = Command::new(psql).args([&cluster.url(), "-XAtc", sql]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn start(data_dir: &Path) -> Result<Cluster, ClusterError> {
    let mut cluster = Cluster::hold(data_dir).await?;
    cluster.bring_up().await?;
    Ok(cluster)
}

async fn stop(mut cluster: Cluster) {
    cluster.stop(Instant::now() + Duration::from_secs(60)).await;
    assert!(matches!(PidFile::read(&cluster.directory), Read::Absent), "it was not stopped in order");
}

fn process_id(cluster: &Cluster) -> u32 {
    match PidFile::read(&cluster.directory) {
        Read::Written(file) => file.pid,
        read @ (Read::Absent | Read::Torn) => panic!("{read:?}"),
    }
}

#[tokio::test]
async fn a_cluster_is_made_stopped_and_found_again_with_its_data() {
    let data_dir = data_dir();
    let cluster = start(data_dir.path()).await.unwrap();
    let settings = "SELECT current_user || ' ' || current_database() || ' ' || current_setting('listen_addresses') || \
                    current_setting('fsync') || current_setting('synchronous_commit') || ' ' || \
                    current_setting('server_encoding') || ' ' || current_setting('lc_collate') || ' ' || \
                    current_setting('checkpoint_timeout') || ' ' || \
                    (pg_size_bytes(current_setting('max_wal_size')) BETWEEN 256 * 1048576 AND 16384 * 1048576::bigint)";
    let settings = if cluster.binaries.major >= 16 {
        settings.replace("current_setting('lc_collate')", "'C'")
    } else {
        settings.to_owned()
    };
    assert_eq!(ask(&cluster, &settings).await, "farmiq farmiq onon UTF8 C 15min true");
    ask(&cluster, "CREATE TABLE kept (n int)").await;
    ask(&cluster, "INSERT INTO kept VALUES (42)").await;
    let directory = cluster.directory.clone();
    stop(cluster).await;
    assert!(matches!(PidFile::read(&directory), Read::Absent));

    let again = start(data_dir.path()).await.unwrap();
    assert_eq!(ask(&again, "SELECT n FROM kept").await, "42");
    stop(again).await;
}

#[tokio::test]
async fn a_server_left_running_is_adopted_and_a_second_engine_is_kept_out() {
    let data_dir = data_dir();
    let first = start(data_dir.path()).await.unwrap();
    let pid = process_id(&first);
    let in_use = start(data_dir.path()).await.unwrap_err();
    assert!(matches!(in_use, ClusterError::InUse(_)), "{in_use}");
    drop(first);
    let second = start(data_dir.path()).await.unwrap();
    assert_eq!(process_id(&second), pid);
    stop(second).await;
}

#[tokio::test]
async fn a_killed_server_and_its_stale_process_id_file_do_not_stop_the_next_start() {
    let data_dir = data_dir();
    let cluster = start(data_dir.path()).await.unwrap();
    ask(&cluster, "CREATE TABLE kept AS SELECT 7 AS n").await;
    let pid = process_id(&cluster);
    let server = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    drop(cluster);
    let again = start(data_dir.path()).await.unwrap();
    assert_eq!(ask(&again, "SELECT n FROM kept").await, "7");
    let directory = again.directory.clone();
    stop(again).await;

    // The number of the dead server now belongs to another process: this one.
    let stale = format!("{}\n{}\n1\n5432\n/x\n\n\nready\n", std::process::id(), directory.display());
    fs::write(directory.join("postmaster.pid"), stale).unwrap();
    let again = start(data_dir.path()).await.unwrap();
    assert_eq!(ask(&again, "SELECT n FROM kept").await, "7");
    stop(again).await;
}

#[tokio::test]
async fn a_socket_where_nobody_answers_is_no_server() {
    let data_dir = data_dir();
    let cluster = start(data_dir.path()).await.unwrap();
    assert!(cluster.asks_and_hears().await);
    let socket = cluster.socket_directory.join(format!(".s.PGSQL.{PORT}"));
    stop(cluster).await;

    // As after a kill: the system takes the connection, which then ends without a word.
    let cluster = Cluster::hold(data_dir.path()).await.unwrap();
    let silent = tokio::net::UnixListener::bind(&socket).unwrap();
    let (hears, taken) = tokio::join!(cluster.asks_and_hears(), async { silent.accept().await.map(drop) });
    taken.unwrap();
    assert!(!hears, "the end of a connection is no answer");
}

/// The modes and the group that a volume gets when it is handed to a group of users.
fn hand_to_group(path: &Path) {
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap).filter(|entry| !entry.path().is_symlink()) {
        let found = entry.metadata().unwrap();
        if found.is_dir() {
            hand_to_group(&entry.path());
        }
        if found.is_dir() || found.is_file() {
            let setgid = if found.is_dir() { 0o2000 } else { 0 };
            fs::set_permissions(
                entry.path(),
                fs::Permissions::from_mode(found.mode() & 0o7777 | 0o060 | setgid),
            )
            .unwrap();
        }
    }
}

#[tokio::test]
async fn modes_that_a_volume_was_given_are_put_right() {
    let data_dir = data_dir();
    let cluster = start(data_dir.path()).await.unwrap();
    ask(&cluster, "CREATE TABLE kept AS SELECT 7 AS n").await;
    let (directory, socket_directory) = (cluster.directory.clone(), cluster.socket_directory.clone());
    stop(cluster).await;
    for opened in [0o2770, 0o777, 0o500] {
        hand_to_group(data_dir.path());
        for path in [&directory, &socket_directory] {
            fs::set_permissions(path, fs::Permissions::from_mode(opened)).unwrap();
        }
        let again = start(data_dir.path()).await.unwrap();
        assert_eq!(ask(&again, "SELECT n FROM kept").await, "7");
        for path in [&directory, &socket_directory] {
            assert_eq!(mode(&fs::metadata(path).unwrap()), PRIVATE, "{}", path.display());
        }
        stop(again).await;
    }
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_told_with_its_owner_and_mode() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can give directories away");
    }
    let data_dir = data_dir();
    let cluster = Cluster::hold(data_dir.path()).await.unwrap();
    fs::create_dir(&cluster.socket_directory).unwrap();
    std::os::unix::fs::chown(&cluster.socket_directory, Some(54_321), None).unwrap();
    let error = cluster.make_private_directory(&cluster.socket_directory).unwrap_err().to_string();
    let wanted = cluster.owner.as_ref().unwrap().uid;
    assert!(error.contains("socket belongs to uid 54321 (mode 0755)"), "{error}");
    assert!(error.contains(&format!("`chown -R {wanted} ")), "{error}");
}

#[tokio::test]
async fn a_torn_process_id_file_does_not_stop_the_next_start() {
    let data_dir = data_dir();
    let cluster = start(data_dir.path()).await.unwrap();
    ask(&cluster, "CREATE TABLE kept AS SELECT 7 AS n").await;
    let directory = cluster.directory.clone();
    stop(cluster).await;
    for torn in [&b""[..], b"\0\0\0\0\0\0\0\0", b"garbage\n"] {
        fs::write(directory.join("postmaster.pid"), torn).unwrap();
        let again = start(data_dir.path()).await.unwrap();
        assert_eq!(ask(&again, "SELECT n FROM kept").await, "7");
        stop(again).await;
    }

    // The same beside a server that lives: it is ended first.
    let again = start(data_dir.path()).await.unwrap();
    let pid = process_id(&again);
    fs::write(directory.join("postmaster.pid"), b"").unwrap();
    drop(again);
    let last = start(data_dir.path()).await.unwrap();
    assert_ne!(process_id(&last), pid);
    assert_eq!(ask(&last, "SELECT n FROM kept").await, "7");
    stop(last).await;
}

#[tokio::test]
async fn a_draft_that_a_crash_left_is_made_anew() {
    let data_dir = data_dir();
    let draft = data_dir.path().join("postgres.draft");
    fs::create_dir_all(draft.join("base/1")).unwrap();
    fs::write(draft.join("PG_VERSION"), "").unwrap();
    let cluster = start(data_dir.path()).await.unwrap();
    assert_eq!(ask(&cluster, "SHOW data_checksums").await, "on");
    assert!(!draft.exists());
    stop(cluster).await;
}

#[tokio::test]
async fn a_server_whose_socket_was_taken_away_is_started_anew() {
    let data_dir = data_dir();
    let cluster = start(data_dir.path()).await.unwrap();
    let (pid, socket_directory) = (process_id(&cluster), cluster.socket_directory.clone());
    drop(cluster);
    fs::remove_dir_all(&socket_directory).unwrap();
    let mut again = start(data_dir.path()).await.unwrap();
    assert_ne!(process_id(&again), pid);
    assert_eq!(ask(&again, "SELECT 1").await, "1");

    // And while it is looked after.
    fs::remove_dir_all(&socket_directory).unwrap();
    let ended = again.until_it_ends().await;
    assert!(ended.contains("was taken away"), "{ended}");
    again.bring_up().await.unwrap();
    assert_eq!(ask(&again, "SELECT 1").await, "1");
    stop(again).await;
}

#[tokio::test]
async fn the_reason_is_told_when_a_server_does_not_start() {
    let data_dir = data_dir();
    let cluster = start(data_dir.path()).await.unwrap();
    let conf = cluster.directory.join("postgresql.conf");
    stop(cluster).await;
    let good = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{good}\nno_such_setting = on\n")).unwrap();
    let error = start(data_dir.path()).await.unwrap_err();
    assert!(
        error.to_string().contains("unrecognized configuration parameter \"no_such_setting\""),
        "{error}"
    );
    assert!(error.is_permanent());

    // Before it has a log, too.
    fs::write(&conf, good).unwrap();
    fs::write(data_dir.path().join("postgres/PG_VERSION"), "15\n").unwrap();
    fs::remove_dir_all(data_dir.path().join("postgres/pg_wal")).unwrap();
    fs::remove_dir_all(data_dir.path().join("postgres/log")).unwrap();
    let error = start(data_dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("pg_wal"), "{error}");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_made_tells_why() {
    let data_dir = data_dir();
    let mut cluster = Cluster::hold(data_dir.path()).await.unwrap();
    let programs = tempfile::tempdir().unwrap();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = "#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8; do echo \"step $i ... ok\"; done\n\
        echo 'FATAL:  could not write to file: No space left on device' >&2\n\
        echo 'initdb: removing contents of data directory' >&2\nexit 1\n";
    fs::write(programs.path().join("initdb"), script).unwrap();
    fs::set_permissions(programs.path().join("initdb"), fs::Permissions::from_mode(0o755)).unwrap();
    cluster.binaries = Binaries { directory: programs.path().to_owned(), major: 15 };
    let error = cluster.bring_up().await.unwrap_err();
    assert_eq!(error.to_string(), "initdb failed: FATAL:  could not write to file: No space left on device");
    assert!(!error.is_permanent(), "the disk may be emptied");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one_elsewhere() {
    let data_dir = data_dir();
    let long = data_dir.path().join("a".repeat(100));
    let cluster = start(&long).await.unwrap();
    assert!(!cluster.socket_directory.starts_with(&long));
    assert_eq!(ask(&cluster, "SELECT 1").await, "1");
    let socket_directory = cluster.socket_directory.clone();
    stop(cluster).await;
    fs::remove_dir_all(socket_directory).unwrap();
}

#[tokio::test]
async fn a_cluster_of_a_version_that_is_not_installed_says_what_to_install() {
    let data_dir = data_dir();
    fs::create_dir(data_dir.path().join("postgres")).unwrap();
    fs::write(data_dir.path().join("postgres/PG_VERSION"), "9\n").unwrap();
    let error = start(data_dir.path()).await.unwrap_err();
    assert!(error.to_string().contains("apt-get install postgresql-9"), "{error}");
}
