//! A private cluster is made, found again, adopted and stopped; each test with a real server of its own.

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

fn process_id(cluster: &Cluster) -> u32 {
    PidFile::read(&cluster.directory).unwrap().pid
}

#[tokio::test]
async fn a_cluster_is_made_stopped_and_found_again_with_its_data() {
    let data_dir = data_dir();
    let cluster = Cluster::start(data_dir.path()).await.unwrap();
    let settings = "SELECT current_user || ' ' || current_database() || ' ' || current_setting('listen_addresses') || \
                    current_setting('fsync') || current_setting('synchronous_commit') || ' ' || \
                    current_setting('server_encoding') || ' ' || current_setting('lc_collate') || ' ' || \
                    current_setting('max_wal_size')";
    let settings = if cluster.binaries.major >= 16 {
        settings.replace("current_setting('lc_collate')", "'C'")
    } else {
        settings.to_owned()
    };
    assert_eq!(ask(&cluster, &settings).await, "farmiq farmiq onon UTF8 C 2GB");
    ask(&cluster, "CREATE TABLE kept (n int)").await;
    ask(&cluster, "INSERT INTO kept VALUES (42)").await;
    let directory = cluster.directory.clone();
    cluster.stop().await.unwrap();
    assert!(PidFile::read(&directory).is_none());

    let again = Cluster::start(data_dir.path()).await.unwrap();
    assert_eq!(ask(&again, "SELECT n FROM kept").await, "42");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_left_running_is_adopted_and_a_second_engine_is_kept_out() {
    let data_dir = data_dir();
    let first = Cluster::start(data_dir.path()).await.unwrap();
    let pid = process_id(&first);
    let in_use = Cluster::start(data_dir.path()).await.unwrap_err();
    assert!(matches!(in_use, ClusterError::InUse(_)), "{in_use}");
    drop(first);
    let second = Cluster::start(data_dir.path()).await.unwrap();
    assert_eq!(process_id(&second), pid);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_and_its_stale_process_id_file_do_not_stop_the_next_start() {
    let data_dir = data_dir();
    let cluster = Cluster::start(data_dir.path()).await.unwrap();
    ask(&cluster, "CREATE TABLE kept AS SELECT 7 AS n").await;
    let pid = process_id(&cluster);
    let server = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    drop(cluster);
    let again = Cluster::start(data_dir.path()).await.unwrap();
    assert_eq!(ask(&again, "SELECT n FROM kept").await, "7");
    let directory = again.directory.clone();
    again.stop().await.unwrap();

    // The number of the dead server now belongs to another process: this one.
    let stale = format!("{}\n{}\n1\n5432\n/x\n\n\nready\n", std::process::id(), directory.display());
    fs::write(directory.join("postmaster.pid"), stale).unwrap();
    let again = Cluster::start(data_dir.path()).await.unwrap();
    assert_eq!(ask(&again, "SELECT n FROM kept").await, "7");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one_elsewhere() {
    let data_dir = data_dir();
    let long = data_dir.path().join("a".repeat(100));
    let cluster = Cluster::start(&long).await.unwrap();
    assert!(!cluster.socket_directory.starts_with(&long));
    assert_eq!(ask(&cluster, "SELECT 1").await, "1");
    let socket_directory = cluster.socket_directory.clone();
    cluster.stop().await.unwrap();
    fs::remove_dir_all(socket_directory).unwrap();
}

#[tokio::test]
async fn a_cluster_of_a_version_that_is_not_installed_says_what_to_install() {
    let data_dir = data_dir();
    fs::create_dir(data_dir.path().join("postgres")).unwrap();
    fs::write(data_dir.path().join("postgres/PG_VERSION"), "9\n").unwrap();
    let error = Cluster::start(data_dir.path()).await.unwrap_err();
    assert!(error.to_string().contains("apt-get install postgresql-9"), "{error}");
}
