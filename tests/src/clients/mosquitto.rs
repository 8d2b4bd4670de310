//! The command-line clients of Mosquitto.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::{Client, Control, Credential, Event, Listening, Message, Way};

/// How long sessions last that outlive their connection, in MQTT 5.
const SESSION_SECONDS: &str = "3600";

/// A `mosquitto_sub`.
pub(super) fn listen(way: &Way, listening: &Listening) -> Client {
    let Listening { client_id, lasts, will, topic } = listening;
    let mut command = command("mosquitto_sub", way);
    command.args(["-d", "-i", client_id, "-t", topic, "-q", "1", "-F", "message %q %r %t %p"]);
    if *lasts {
        command.arg("-c");
        if way.version == 5 {
            command.args(["-x", SESSION_SECONDS]);
        }
    }
    if let Some(Message { topic, payload, qos, retain }) = will {
        command.args(["--will-topic", topic, "--will-payload", payload, "--will-qos", &qos.to_string()]);
        if *retain {
            command.arg("--will-retain");
        }
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("mosquitto_sub can be started");
    let output = child.stdout.take().expect("it was piped");
    let (events, receiver) = unbounded_channel();
    let mut reader = JoinSet::new();
    reader.spawn(read(output, events));
    Client {
        control: Control::Process(child),
        events: receiver,
        messages: [].into(),
        session_present: false,
        _reader: reader,
    }
}

/// A `mosquitto_pub`, from its start to its end.
pub(super) async fn publish(way: &Way, message: &Message, client_id: Option<&str>) {
    let Message { topic, payload, qos, retain } = message;
    let mut command = command("mosquitto_pub", way);
    command.args(["-t", topic, "-q", &qos.to_string()]);
    if payload.is_empty() {
        command.arg("-n");
    } else {
        command.args(["-m", payload]);
    }
    if *retain {
        command.arg("-r");
    }
    if let Some(client_id) = client_id {
        command.args(["-i", client_id]);
    }
    let mut child: Child = command.spawn().expect("mosquitto_pub can be started");
    let status = child.wait().await.expect("a child can be waited for");
    assert!(status.success(), "{status}");
}

fn command(program: &str, way: &Way) -> Command {
    assert!(!way.websocket, "these clients know no WebSocket");
    // Into a pipe these programs write only when they have much to say; this has them write line by line.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program]);
    let version = if way.version == 5 { "5" } else { "311" };
    command.args(["-h", "localhost", "-p", &way.port.to_string(), "-V", version]).kill_on_drop(true);
    if let Some(ca) = &way.ca {
        command.arg("--cafile").arg(ca);
    }
    match &way.credential {
        Credential::Password(user, password) => command.args(["-u", user, "-P", password]),
        Credential::Certificate(cert, key) => command.arg("--cert").arg(cert).arg("--key").arg(key),
    };
    command
}

/// Finds events in what the program says about itself. It connects again by itself; that is told as the end.
async fn read(output: ChildStdout, events: UnboundedSender<Event>) {
    let mut lines = BufReader::new(output).lines();
    let mut has_connected = false;
    while let Some(line) = lines.next_line().await.expect("it writes text") {
        let event = if let Some(message) = line.strip_prefix("message ") {
            let words: Vec<_> = message.splitn(4, ' ').collect();
            let [qos, retain, topic, payload] = words[..] else { panic!("it wrote {line:?}") };
            Event::Message(Message {
                topic: topic.to_owned(),
                payload: payload.to_owned(),
                qos: qos.parse().expect("a QoS"),
                retain: retain == "1",
            })
        } else if line.contains("sending CONNECT") {
            if !std::mem::replace(&mut has_connected, true) {
                continue;
            }
            Event::Closed
        } else if let Some((_, code)) = line.split_once("received CONNACK (") {
            match code.trim_end_matches(')').parse() {
                // It does not say whether its session was known.
                Ok(0) => Event::Connected { session_present: false },
                Ok(code) => Event::Refused(code),
                Err(_) => panic!("it wrote {line:?}"),
            }
        } else if let Some((_, code)) =
            line.strip_prefix("Subscribed ").and_then(|rest| rest.rsplit_once(": "))
        {
            Event::Subscribed(vec![code.parse().expect("a number")])
        } else {
            continue;
        };
        drop(events.send(event));
    }
    drop(events.send(Event::Closed));
}
