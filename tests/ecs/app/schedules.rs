//! Where the plugin's systems run, and what it says if they never will.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// Keeps the messages of neurarch's events.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<String>>>);

struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "neurarch"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = String::new();
        event.record(&mut Message(&mut message));
        self.0.lock().unwrap().push(message);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Lists what is warned of while an app is put together.
fn warnings(build: impl FnOnce(&mut App)) -> Vec<String> {
    let listener = Listener::default();
    tracing::subscriber::with_default(listener.clone(), || {
        let mut app = App::new();
        build(&mut app);
        app.finish();
        app.cleanup();
    });
    std::mem::take(&mut *listener.0.lock().unwrap())
}

#[test]
fn fixed_update_without_a_clock_is_warned_of() {
    let message = "NeurarchPlugin is in FixedUpdate, which never runs without bevy_time's TimePlugin: add it, or choose \
        another schedule by in_schedule(Update)";
    let warned = warnings(|app| _ = app.add_plugins(NeurarchPlugin::default()));
    assert_eq!(warned, [message]);
    let elsewhere = NeurarchPlugin::default().in_schedule(Update);
    assert!(warnings(|app| _ = app.add_plugins(elsewhere)).is_empty());
    // Whatever is added first.
    let both = (NeurarchPlugin::default(), TimePlugin);
    assert!(warnings(|app| _ = app.add_plugins(both)).is_empty());
}
