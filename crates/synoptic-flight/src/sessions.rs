//! Whose options hold: the sessions of all clients.
//!
//! A call belongs to the session of, in this order: its cookie `arrow_flight_session_id`, the
//! token that Handshake gave it, its connection. A session is made at the first call that needs
//! it. It ends with CloseSession, with its connection when nothing else names it, after
//! `session_idle_ttl` unused, or when too many are newer. Later calls then start a fresh one.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use synoptic_engine::{Engine, Session};

use crate::options::FlightOptions;
use crate::prepared::PreparedStore;
use crate::ticket::Signer;

/// The name of the cookie that Flight fixes.
pub(crate) const COOKIE: &str = "arrow_flight_session_id";

const TOKEN_ID_BYTES: usize = 16;
const PURPOSE: &str = "session";

/// What names a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The id inside a token, which is also the cookie's value.
    Token([u8; TOKEN_ID_BYTES]),
    /// A connection.
    Connection(u64),
}

/// One client's session.
pub(crate) struct ClientSession {
    /// The engine's part: options, current catalog and schema.
    pub(crate) session: Session,
    /// All names of this session.
    keys: Mutex<HashSet<Key>>,
    /// The token given to a session that was known by its connection only.
    alias: OnceLock<String>,
    /// Handles of its prepared statements, which end with it.
    pub(crate) handles: Mutex<HashSet<String>>,
    prepared: PreparedStore,
}

impl ClientSession {
    fn close_prepared(&self) {
        // The store calls back to take the handle from the set: the lock must be free by then.
        let handles = std::mem::take(&mut *self.handles.lock());
        for handle in handles {
            self.prepared.close(&handle);
        }
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.close_prepared();
    }
}

/// All sessions.
pub(crate) struct Sessions {
    engine: Arc<Engine>,
    signer: Signer,
    prepared: PreparedStore,
    by_key: Cache<Key, Arc<ClientSession>>,
}

impl Sessions {
    pub(crate) fn new(
        engine: Arc<Engine>,
        signer: Signer,
        prepared: PreparedStore,
        options: &FlightOptions,
    ) -> Self {
        let by_key = Cache::builder()
            .max_capacity(options.max_sessions)
            .time_to_idle(options.session_idle_ttl)
            // The default policy would refuse newcomers in favour of often used sessions.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { engine, signer, prepared, by_key }
    }

    /// The session of `key`, made when there is none. `client` is shown in `system.queries`.
    pub(crate) fn get(&self, key: Key, client: &str) -> Arc<ClientSession> {
        self.by_key.get_with(key, || {
            Arc::new(ClientSession {
                session: self.engine.session(client),
                keys: Mutex::new(HashSet::from([key])),
                alias: OnceLock::new(),
                handles: Mutex::default(),
                prepared: self.prepared.clone(),
            })
        })
    }

    /// A new token. It costs nothing until a call uses it, so handshakes do not fill memory.
    pub(crate) fn mint(&self) -> String {
        self.seal(rand::random())
    }

    /// A token that names this session too, always the same.
    pub(crate) fn alias(&self, session: &Arc<ClientSession>) -> String {
        let make = || {
            let id = rand::random();
            session.keys.lock().insert(Key::Token(id));
            self.by_key.insert(Key::Token(id), Arc::clone(session));
            self.seal(id)
        };
        session.alias.get_or_init(make).clone()
    }

    /// The key inside a token, when this server made it.
    pub(crate) fn read(&self, token: &str) -> Option<Key> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (id, mac) = bytes.split_first_chunk::<TOKEN_ID_BYTES>()?;
        self.signer.verify(PURPOSE, id, mac).then_some(Key::Token(*id))
    }

    /// Ends a session under all its names, and its prepared statements.
    pub(crate) fn close(&self, session: &ClientSession) {
        let keys = std::mem::take(&mut *session.keys.lock());
        for key in keys {
            self.by_key.invalidate(&key);
        }
        session.close_prepared();
    }

    /// Takes one name from its session, which ends when it was the last.
    pub(crate) fn forget(&self, key: Key) {
        if let Some(session) = self.by_key.remove(&key) {
            session.keys.lock().remove(&key);
        }
    }

    /// Drops what has expired; without it that happens only when sessions are used.
    pub(crate) fn sweep(&self) {
        self.by_key.run_pending_tasks();
    }

    fn seal(&self, id: [u8; TOKEN_ID_BYTES]) -> String {
        let mut bytes = id.to_vec();
        bytes.extend(self.signer.sign(PURPOSE, &id));
        URL_SAFE_NO_PAD.encode(bytes)
    }
}
