//! Tenants and places: which rows a caller may see, and where a device may act.

use super::{Call, Caller, Scope, refused};
use crate::http::error::{Code, Error};

/// Whose rows are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) enum Tenants {
    /// Those of every tenant.
    All,
    /// Those of these tenants.
    Of(Vec<String>),
}

impl Tenants {
    /// The tenants of an operator key, where `*` means all.
    #[must_use]
    pub(in crate::http) fn of_key(tenants: &[String]) -> Self {
        if tenants.iter().any(|tenant| tenant == "*") { Self::All } else { Self::Of(tenants.to_vec()) }
    }

    /// Whether the rows of a tenant are among them.
    #[must_use]
    pub(in crate::http) fn contains(&self, tenant_id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(tenants) => tenants.iter().any(|tenant| tenant == tenant_id),
        }
    }

    /// The list for a statement, where `None` means all.
    #[must_use]
    pub(in crate::http) fn as_slice(&self) -> Option<&[String]> {
        match self {
            Self::All => None,
            Self::Of(tenants) => Some(tenants),
        }
    }
}

impl Call {
    /// The tenant a read is limited to; `None` means every tenant, which only a key for all may mean by naming none.
    /// `named` is the tenant of the query.
    ///
    /// # Errors
    /// `TENANT_MISMATCH` when header, query and credential disagree, `MISSING_TENANT` when nobody says.
    pub(in crate::http) fn read_tenant(&self, named: Option<&str>) -> Result<Option<String>, Error> {
        let named = self.agreed(named)?;
        match (&self.caller, named) {
            (Caller::Device(scope), Some(tenant)) if tenant != scope.tenant_id => Err(tenant_mismatch()),
            (Caller::Device(scope), _) => Ok(Some(scope.tenant_id.clone())),
            (Caller::Operator(operator), Some(tenant)) if !operator.tenants.contains(tenant) => {
                Err(tenant_mismatch())
            }
            (Caller::Operator(_) | Caller::Compat | Caller::Anyone, Some(tenant)) => {
                Ok(Some(tenant.to_owned()))
            }
            (Caller::Operator(operator), None) => match operator.tenants.as_slice() {
                None => Ok(None),
                Some([only]) => Ok(Some(only.clone())),
                Some(_) => Err(missing_tenant()),
            },
            (Caller::Compat | Caller::Anyone, None) => Err(missing_tenant()),
        }
    }

    /// The one tenant that a call is about; `named` is that of its query or body.
    ///
    /// # Errors
    /// Those of [`Call::read_tenant`], and `MISSING_TENANT` when a key for all names none.
    pub(in crate::http) fn tenant(&self, named: Option<&str>) -> Result<String, Error> {
        self.read_tenant(named)?.ok_or_else(missing_tenant)
    }

    /// The tenants whose rows a caller of the whole box may see, narrowed by the query but not by `x-tenant-id`.
    ///
    /// # Errors
    /// `TENANT_MISMATCH` when the query names a tenant that is not the caller's.
    pub(in crate::http) fn tenants(&self, named: Option<&str>) -> Result<Tenants, Error> {
        let own = match &self.caller {
            Caller::Operator(operator) => operator.tenants.clone(),
            Caller::Device(scope) => Tenants::Of(vec![scope.tenant_id.clone()]),
            Caller::Anyone | Caller::Compat => Tenants::All,
        };
        match named {
            None => Ok(own),
            Some(tenant) if own.contains(tenant) => Ok(Tenants::Of(vec![tenant.to_owned()])),
            Some(_) => Err(tenant_mismatch()),
        }
    }

    /// Whether the call may act for a tenant that its body names: the first of the three checks of scope.
    #[must_use]
    pub(in crate::http) fn may_act_for(&self, tenant_id: &str) -> bool {
        let agrees_with_header = self.tenant_header.as_deref().is_none_or(|header| header == tenant_id);
        agrees_with_header
            && match &self.caller {
                Caller::Device(scope) => scope.tenant_id == tenant_id,
                Caller::Operator(operator) => operator.tenants.contains(tenant_id),
                Caller::Compat | Caller::Anyone => true,
            }
    }

    /// Checks what does not depend on the body: the header against the credential.
    ///
    /// # Errors
    /// `TENANT_MISMATCH`.
    pub(in crate::http) fn check_header(&self) -> Result<(), Error> {
        let header = self.tenant_header.as_deref();
        if header.is_none_or(|tenant_id| self.may_act_for(tenant_id)) {
            Ok(())
        } else {
            Err(tenant_mismatch())
        }
    }

    /// The scope of the device that calls; an operator and a device in compat mode have none.
    #[must_use]
    pub(in crate::http) fn scope(&self) -> Option<&Scope> {
        match &self.caller {
            Caller::Device(scope) => Some(scope),
            Caller::Operator(_) | Caller::Compat | Caller::Anyone => None,
        }
    }

    /// Whether the call shows no credential, which only compat mode lets in.
    #[must_use]
    pub(in crate::http) fn is_compat(&self) -> bool {
        matches!(self.caller, Caller::Compat)
    }

    fn agreed<'a>(&'a self, named: Option<&'a str>) -> Result<Option<&'a str>, Error> {
        match (self.tenant_header.as_deref(), named) {
            (Some(header), Some(named)) if header != named => Err(tenant_mismatch()),
            (header, named) => Ok(named.or(header)),
        }
    }
}

/// Whether a place that a body or the allowlist names is the token's, where the token names one.
#[must_use]
pub(in crate::http) fn agrees_with_token(claim: Option<&str>, place: Option<&str>) -> bool {
    match (claim, place) {
        (Some(claim), Some(place)) => claim == place,
        (None, _) | (_, None) => true,
    }
}

/// A call whose tenants disagree, or that names none where it must.
pub(in crate::http) fn tenant_mismatch() -> Error {
    refused(Code::TenantMismatch, "tenant", "tenants of credential, header and request must agree")
}

fn missing_tenant() -> Error {
    Error::new(Code::MissingTenant, "name a tenant by tenant_id or x-tenant-id")
}

#[cfg(test)]
mod tests {
    use schema::id;

    use super::*;
    use crate::config::Role;
    use crate::http::auth::Operator;
    use crate::http::frame::CallIds;

    fn call(caller: Caller, header: Option<&str>) -> Call {
        let id: std::sync::Arc<str> = id::new_id().to_string().into();
        Call {
            caller,
            tenant_header: header.map(str::to_owned),
            ids: CallIds { request_id: id.clone(), trace_id: id, is_trace_given: false },
            peer: None,
        }
    }

    fn device() -> Caller {
        Caller::Device(Scope { tenant_id: "t-1".into(), device_id: "d".into(), ..Scope::default() })
    }

    fn operator(tenants: &[&str]) -> Caller {
        let tenants: Vec<String> = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
        Caller::Operator(Operator { name: "#1".into(), role: Role::Read, tenants: Tenants::of_key(&tenants) })
    }

    #[test]
    fn a_read_is_limited_to_one_tenant() {
        let check = |caller: Caller, header, named, expected: Result<Option<&str>, Code>| {
            let outcome = call(caller.clone(), header).read_tenant(named).map_err(|error| error.code);
            assert_eq!(
                outcome,
                expected.map(|tenant| tenant.map(str::to_owned)),
                "{caller:?} {header:?} {named:?}"
            );
        };
        check(device(), None, None, Ok(Some("t-1")));
        check(device(), Some("t-1"), Some("t-1"), Ok(Some("t-1")));
        check(device(), Some("t-2"), None, Err(Code::TenantMismatch));
        check(device(), None, Some("t-2"), Err(Code::TenantMismatch));
        check(operator(&["*"]), None, None, Ok(None));
        check(operator(&["*"]), None, Some("t-9"), Ok(Some("t-9")));
        check(operator(&["*"]), Some("t-8"), Some("t-9"), Err(Code::TenantMismatch));
        check(operator(&["t-1"]), None, None, Ok(Some("t-1")));
        check(operator(&["t-1", "t-2"]), None, None, Err(Code::MissingTenant));
        check(operator(&["t-1", "t-2"]), Some("t-2"), None, Ok(Some("t-2")));
        check(operator(&["t-1", "t-2"]), None, Some("t-3"), Err(Code::TenantMismatch));
        check(Caller::Compat, None, None, Err(Code::MissingTenant));
        check(Caller::Compat, Some("t-1"), None, Ok(Some("t-1")));
        check(Caller::Compat, None, Some("t-1"), Ok(Some("t-1")));
        check(Caller::Compat, Some("t-1"), Some("t-2"), Err(Code::TenantMismatch));
    }

    #[test]
    fn the_whole_box_is_narrowed_by_the_query_and_not_by_the_header() {
        let check = |caller: Caller, named, expected: Result<Tenants, Code>| {
            let outcome = call(caller, Some("t-7")).tenants(named).map_err(|error| error.code);
            assert_eq!(outcome, expected, "{named:?}");
        };
        check(Caller::Anyone, None, Ok(Tenants::All));
        check(operator(&["*"]), None, Ok(Tenants::All));
        check(operator(&["*"]), Some("t-1"), Ok(Tenants::Of(vec!["t-1".into()])));
        check(operator(&["t-1"]), None, Ok(Tenants::Of(vec!["t-1".into()])));
        check(operator(&["t-1"]), Some("t-2"), Err(Code::TenantMismatch));
    }

    #[test]
    fn a_call_acts_for_the_tenant_that_all_agree_on() {
        assert!(call(device(), None).may_act_for("t-1"));
        assert!(!call(device(), None).may_act_for("t-2"));
        assert!(!call(device(), Some("t-2")).may_act_for("t-1"));
        assert!(call(operator(&["t-1"]), None).may_act_for("t-1"));
        assert!(!call(operator(&["t-1"]), None).may_act_for("t-2"));
        assert!(call(Caller::Compat, None).may_act_for("t-2"));
        assert!(!call(Caller::Compat, Some("t-1")).may_act_for("t-2"));
        assert!(call(device(), Some("t-2")).check_header().is_err());
    }
}
