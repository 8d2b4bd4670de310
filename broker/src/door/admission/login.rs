//! Who a client is, and what it is told when nobody can tell.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::door::admission::{Refused, unavailable};
use crate::door::caller::Caller;
use crate::door::packet::{ConnectCode, Version};
use crate::door::shared::Shared;
use crate::gatekeeper::{CredentialId, Login, Principal, Scope, Shown};
use crate::stats::Refusal;
use crate::tls::ClientChain;

/// How often it is asked again who a client is that waits for the database.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A client that is known.
pub(super) struct Known {
    pub(super) principal: Principal,
    /// Where a device may act.
    pub(super) scope: Option<Scope>,
    /// The password it came with.
    pub(super) credential: Option<CredentialId>,
    /// How often everybody had been judged when it was asked who this is.
    pub(super) rechecks: u64,
}

/// Finds out who a client is. While nobody can tell, one of version 5 is told to come again, and one of 3.1.1 waits until its
/// time is over: devices are known that take any CONNACK for a success, and throw away what they had kept.
pub(super) async fn log_in(
    shared: &Shared,
    caller: &mut Caller,
    version: Version,
    username: Option<&str>,
    password: Option<&[u8]>,
) -> Result<Known, Refused> {
    loop {
        caller.asks();
        let rechecks = shared.judge.rechecks();
        let login = ask(shared, caller, username, password).await;
        match (login, version) {
            (Login::Unavailable, Version::V4) if Instant::now() + ASK_AGAIN < caller.deadline => {
                sleep_until(Instant::now() + ASK_AGAIN).await;
            }
            (login, version) => {
                let identified = identify(shared, version, login, rechecks);
                note(shared, caller, username, &identified);
                return identified;
            }
        }
    }
}

async fn ask(shared: &Shared, caller: &Caller, username: Option<&str>, password: Option<&[u8]>) -> Login {
    if shared.gatekeeper.stalled_for() > shared.settings.stall_max || shared.hub.journal.is_behind() {
        return Login::Unavailable;
    }
    let deadline = caller.deadline;
    let subject = caller.chain.as_ref().and_then(ClientChain::subject);
    let shown =
        Shown { source: caller.source(), deadline, certificate: subject.as_ref(), username, password };
    timeout_at(deadline, shared.gatekeeper.login(shown)).await.unwrap_or(Login::Unavailable)
}

fn identify(shared: &Shared, version: Version, login: Login, rechecks: u64) -> Result<Known, Refused> {
    let known = |principal, scope, credential| Known { principal, scope, credential, rechecks };
    match login {
        Login::Anonymous if shared.settings.allow_anonymous => Ok(known(Principal::Anonymous, None, None)),
        Login::Anonymous | Login::Refused => {
            Err(Refused::Answer(version, ConnectCode::NotAuthorized, Refusal::Credential))
        }
        Login::Operator { operator, credential } => {
            Ok(known(Principal::Operator(operator), None, credential))
        }
        Login::Device { identity, credential } => match shared.gatekeeper.scope(&identity) {
            Some(scope) => Ok(known(Principal::Device(identity), Some(scope), credential)),
            None => Err(Refused::Answer(version, ConnectCode::NotAuthorized, Refusal::Revoked)),
        },
        Login::Unavailable => Err(unavailable(version)),
    }
}

/// Notes in the memory of guesses what came of it.
fn note(shared: &Shared, caller: &mut Caller, username: Option<&str>, identified: &Result<Known, Refused>) {
    match identified {
        Ok(_) => caller.was_right(&shared.guesses, username),
        Err(Refused::Answer(_, _, Refusal::Credential)) => caller.was_wrong(&shared.guesses, username),
        Err(Refused::Answer(..) | Refused::Unanswered(_) | Refused::Malformed(_) | Refused::Gone) => {}
    }
}
