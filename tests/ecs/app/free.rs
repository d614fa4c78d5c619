//! An app with no models pays next to nothing for the plugin.

use std::time::Instant;

use super::*;

#[test]
fn an_app_without_models_pays_a_few_microseconds_a_frame() {
    let make = |has_plugin: bool| {
        let mut app = App::new();
        app.add_plugins(TimePlugin);
        app.insert_resource(TimeUpdateStrategy::ManualDuration(TICK));
        if has_plugin {
            app.add_plugins(NeurarchPlugin::default());
        }
        (0..200).for_each(|_| app.update());
        app
    };
    let (mut with, mut without) = (make(true), make(false));
    let time = |app: &mut App| {
        let began = Instant::now();
        (0..50).for_each(|_| app.update());
        began.elapsed().as_nanos() as i64 / 50
    };
    let mut paid: Vec<_> = (0..41).map(|_| time(&mut with) - time(&mut without)).collect();
    paid.sort_unstable();
    let median = paid[paid.len() / 2];
    // Tests are not optimized, and run beside others: the bound of 5 µs is that of a release build.
    let most = if cfg!(debug_assertions) { 1_000_000 } else { 5_000 };
    assert!(median < most, "{median} ns");
}
