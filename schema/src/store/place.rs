//! Where devices are: what each stands for, and what it counts in the means of its house.

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[ALL, LIST, PUT, REMOVE];

/// Places that are known in memory. Whoever has more is asked for them by tenant.
pub const PLACES_MAX: i64 = 50_000;

/// What a device stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The air of the house, at the height of the birds.
    Inside,
    /// The weather.
    Outside,
    /// The water line.
    Water,
    /// A scale.
    Scale,
    /// The light.
    Light,
    /// Gases of the house.
    Air,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Inside, Self::Outside, Self::Water, Self::Scale, Self::Light, Self::Air];

    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Outside => "outside",
            Self::Water => "water",
            Self::Scale => "scale",
            Self::Light => "light",
            Self::Air => "air",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether what it measures is of the house, and enters the means of it.
    #[must_use]
    pub fn is_of_house(self) -> bool {
        match self {
            Self::Inside | Self::Light | Self::Air => true,
            Self::Outside | Self::Water | Self::Scale => false,
        }
    }
}

/// The place of a device, or of one of its metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// The metric that it is the place of; empty for all that have none of their own.
    pub metric_type: String,
    /// What it stands for: a word of [`Role`].
    pub role: String,
    /// Where in the house, in people's words.
    pub zone: Option<String>,
    /// Above the floor.
    pub height_cm: Option<f64>,
    /// What it counts in the means of its house; 0: nothing.
    pub weight: f64,
    /// When this was last changed.
    pub updated_at: Timestamp,
}

row_of!(Place, place_columns as "p": tenant_id, device_id, metric_type, role, zone, height_cm, weight, updated_at);

impl Place {
    /// What it stands for.
    #[must_use]
    pub fn role(&self) -> Role {
        Role::parse(&self.role).unwrap_or(Role::Inside)
    }
}

const ALL: &str = concat!("-- places_all\nSELECT ", place_columns!(), " FROM device_places AS p LIMIT $1");

/// Every place, up to [`PLACES_MAX`].
///
/// # Errors
/// When the database fails.
pub async fn all(conn: &Conn) -> Result<Vec<Place>, StoreError> {
    Ok(conn.query(ALL, &[&PLACES_MAX]).await?.iter().map(Place::from).collect())
}

const LIST: &str = concat!(
    "-- places\nSELECT ",
    place_columns!(),
    " FROM device_places AS p
WHERE tenant_id = $1 AND ($2::text IS NULL OR device_id = $2)
    AND ($3::text IS NULL OR EXISTS (SELECT FROM device_allowlist AS d
        WHERE d.tenant_id = p.tenant_id AND d.device_id = p.device_id AND d.barn_id = $3))
ORDER BY device_id, metric_type LIMIT $4"
);

/// Places of a tenant: of a device, or of the devices that the allowlist has in a barn, where these are named.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    tenant_id: &str,
    device_id: Option<&str>,
    barn_id: Option<&str>,
    limit: i64,
) -> Result<Vec<Place>, StoreError> {
    let rows = conn.query(LIST, &[&tenant_id, &device_id, &barn_id, &limit]).await?;
    Ok(rows.iter().map(Place::from).collect())
}

// A place of a device that is not let in would be nobody's.
const PUT: &str = "-- place_put
INSERT INTO device_places (tenant_id, device_id, metric_type, role, zone, height_cm, weight, updated_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8
WHERE EXISTS (SELECT FROM device_allowlist AS d WHERE d.tenant_id = $1 AND d.device_id = $2)
ON CONFLICT (tenant_id, device_id, metric_type) DO UPDATE SET role = excluded.role, zone = excluded.zone,
    height_cm = excluded.height_cm, weight = excluded.weight, updated_at = excluded.updated_at";

/// Writes a place, new or not; `false`: the tenant has no such device.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, place: &Place) -> Result<bool, StoreError> {
    let Place { tenant_id, device_id, metric_type, role, zone, height_cm, weight, updated_at } = place;
    let written = conn
        .execute(PUT, &[tenant_id, device_id, metric_type, role, zone, height_cm, weight, updated_at])
        .await?;
    Ok(written == 1)
}

const REMOVE: &str = "-- place_remove
DELETE FROM device_places WHERE tenant_id = $1 AND device_id = $2 AND metric_type = $3";

/// Forgets a place; `false`: there was none.
///
/// # Errors
/// When the database fails.
pub async fn remove(
    conn: &Conn,
    tenant_id: &str,
    device_id: &str,
    metric_type: &str,
) -> Result<bool, StoreError> {
    Ok(conn.execute(REMOVE, &[&tenant_id, &device_id, &metric_type]).await? == 1)
}
