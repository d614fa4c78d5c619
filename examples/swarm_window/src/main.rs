//! The swarm of `examples/swarm` in a window of Bevy, as one mesh.
//!
//! ```text
//! cargo run --release --ignore-rust-version
//! cargo run --release --ignore-rust-version -- --frames 600 --picture swarm.png
//! ```
//!
//! Without a screen or a GPU, with Debian's `xvfb` and `mesa-vulkan-drivers`:
//!
//! ```text
//! Xvfb :99 -screen 0 1000x1000x24 &
//! DISPLAY=:99 WGPU_BACKEND=vulkan cargo run --ignore-rust-version -- --bodies 2500 --frames 3000 --picture swarm.png
//! ```
//!
//! Space pauses, C switches dying and being born off and on, Tab watches the next brain: its activations, layer by layer, in
//! the corner. With `--picture` it renders so many frames, writes the last one as PNG, and ends.

#[path = "../../swarm/simulation.rs"]
mod simulation;
mod watch;

use std::path::PathBuf;

use bevy::asset::RenderAssetUsages;
use bevy::mesh::{Indices, PrimitiveTopology};
use bevy::prelude::*;
use bevy::render::view::screenshot::{Capturing, Screenshot, save_to_disk};
use bevy::window::WindowResolution;

use simulation::{Follows, GOALS, Goals, Position, Swarm, SwarmPlugin, Velocity};
use watch::Watched;

const SIZE: u32 = 900;
/// How long a body is.
const LENGTH: f32 = 9.0;
const COLORS: [[f32; 4]; GOALS] = [
    [0.12, 0.47, 0.71, 1.0],
    [1.0, 0.5, 0.05, 1.0],
    [0.17, 0.63, 0.17, 1.0],
    [0.84, 0.15, 0.16, 1.0],
    [0.58, 0.4, 0.74, 1.0],
];

/// What the command line asks for.
#[derive(Resource, Default)]
struct Settings {
    bodies: usize,
    frames: Option<u32>,
    picture: Option<PathBuf>,
}

/// The mesh of all bodies.
#[derive(Resource)]
struct Drawn(Handle<Mesh>);

fn main() -> AppExit {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return AppExit::error();
        }
    };
    let window = Window {
        title: "swarm".into(),
        resolution: WindowResolution::new(SIZE, SIZE),
        ..Window::default()
    };
    let mut app = App::new();
    app.add_plugins(
        DefaultPlugins
            .set(WindowPlugin { primary_window: Some(window), ..WindowPlugin::default() }),
    );
    app.insert_resource(ClearColor(Color::srgb(0.97, 0.97, 0.97)));
    if settings.picture.is_some() {
        // A tick a frame, however slow the frames are.
        let tick = core::time::Duration::from_nanos(15_625_000);
        app.insert_resource(bevy::time::TimeUpdateStrategy::ManualDuration(tick));
    }
    app.add_plugins(SwarmPlugin { bodies: settings.bodies, seed: 7 });
    app.insert_resource(settings).init_resource::<Watched>();
    app.add_systems(Startup, set_up);
    app.add_systems(Update, (press_keys, draw, take_picture).chain());
    app.run()
}

/// Reads `--bodies N`, `--frames N` and `--picture PATH`.
fn settings() -> Result<Settings, String> {
    let mut settings = Settings { bodies: 10_000, ..Settings::default() };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name}: a value is missing"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("{name}: not a number: {value}"));
        match name.as_str() {
            "--bodies" => settings.bodies = number()? as usize,
            "--frames" => settings.frames = Some(number()?),
            "--picture" => settings.picture = Some(value.into()),
            _ => return Err(format!("{name}: unknown; known are --bodies, --frames, --picture")),
        }
    }
    Ok(settings)
}

fn set_up(
    mut commands: Commands,
    mut meshes: ResMut<Assets<Mesh>>,
    mut materials: ResMut<Assets<ColorMaterial>>,
) {
    commands.spawn(Camera2d);
    let mesh = Mesh::new(PrimitiveTopology::TriangleList, RenderAssetUsages::default())
        .with_inserted_attribute(Mesh::ATTRIBUTE_POSITION, vec![[0.0_f32; 3]; 3])
        .with_inserted_attribute(Mesh::ATTRIBUTE_COLOR, vec![[0.0_f32; 4]; 3])
        .with_inserted_indices(Indices::U32(vec![0, 1, 2]));
    let mesh = meshes.add(mesh);
    // It is rewritten each frame, so nobody asks where it lies.
    let body = (Mesh2d(mesh.clone()), MeshMaterial2d(materials.add(ColorMaterial::default())));
    commands.spawn((body, bevy::camera::visibility::NoFrustumCulling));
    commands.insert_resource(Drawn(mesh));
}

fn press_keys(
    keys: Res<ButtonInput<KeyCode>>,
    mut time: ResMut<Time<Virtual>>,
    mut swarm: ResMut<Swarm>,
    mut commands: Commands,
) {
    if keys.just_pressed(KeyCode::Space) {
        if time.is_paused() {
            time.unpause();
        } else {
            time.pause();
        }
    }
    if keys.just_pressed(KeyCode::KeyC) {
        swarm.is_culled = !swarm.is_culled;
    }
    if keys.just_pressed(KeyCode::Tab) {
        commands.queue(watch::next);
    }
}

/// Triangles with colors.
#[derive(Default)]
struct Triangles {
    positions: Vec<[f32; 3]>,
    colors: Vec<[f32; 4]>,
}

impl Triangles {
    fn push(&mut self, corners: [Vec2; 3], color: [f32; 4]) {
        self.positions.extend(corners.map(|at| [at.x, at.y, 0.0]));
        self.colors.extend([color; 3]);
    }

    /// Adds a square.
    fn push_square(&mut self, middle: Vec2, half: f32, color: [f32; 4]) {
        let corner = |x: f32, y: f32| middle + Vec2::new(x, y) * half;
        let [a, b, c, d] =
            [corner(-1.0, -1.0), corner(1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)];
        self.push([a, b, c], color);
        self.push([a, c, d], color);
    }
}

/// Writes the mesh anew: a triangle a body, in the color of its goal and in the direction of its flight; squares for the
/// goals and for what the watched brain has in its layers.
fn draw(
    drawn: Res<Drawn>,
    goals: Res<Goals>,
    watched: Res<Watched>,
    bodies: Query<(Entity, &Position, &Velocity, &Follows)>,
    mut meshes: ResMut<Assets<Mesh>>,
) {
    let Some(mut mesh) = meshes.get_mut(&drawn.0) else { return };
    let scale = SIZE as f32 * 0.48;
    let mut all = Triangles::default();
    for (goal, color) in goals.0.iter().zip(COLORS) {
        let faint = color.map(|part| 1.0 - (1.0 - part) * 0.35);
        all.push_square(*goal * scale, 16.0, faint);
    }
    for (body, place, velocity, follows) in &bodies {
        let along = velocity.0.normalize_or(Vec2::X) * LENGTH;
        let across = along.perp() * 0.3;
        let middle = place.0 * scale;
        let corners =
            [middle + along * 0.6, middle - along * 0.4 + across, middle - along * 0.4 - across];
        all.push(corners, COLORS[follows.0]);
        if watched.body == Some(body) {
            all.push_square(middle, 7.0, [0.0, 0.0, 0.0, 1.0]);
        }
    }
    for (layer, activations) in watched.layers().iter().enumerate() {
        for (unit, &activation) in activations.iter().enumerate() {
            let middle =
                Vec2::new(-scale + 12.0 + 16.0 * unit as f32, scale - 12.0 - 18.0 * layer as f32);
            let part = activation.clamp(-1.0, 1.0);
            let color = [0.5 + part * 0.5, 0.5, 0.5 - part * 0.5, 1.0];
            all.push_square(middle, 7.0, color);
        }
    }
    let count = all.positions.len() as u32;
    mesh.insert_attribute(Mesh::ATTRIBUTE_POSITION, all.positions);
    mesh.insert_attribute(Mesh::ATTRIBUTE_COLOR, all.colors);
    mesh.insert_indices(Indices::U32((0..count).collect()));
}

/// Takes the picture that was asked for after so many frames, and ends when it is written.
fn take_picture(
    mut commands: Commands,
    settings: Res<Settings>,
    capturing: Query<(), With<Capturing>>,
    mut frame: Local<u32>,
    mut exit: MessageWriter<AppExit>,
) {
    *frame += 1;
    let last = settings.frames.unwrap_or(600);
    let Some(path) = &settings.picture else {
        if settings.frames.is_some_and(|last| *frame > last) {
            exit.write(AppExit::Success);
        }
        return;
    };
    if *frame == last / 2 {
        commands.queue(watch::next);
    }
    if *frame == last {
        commands.spawn(Screenshot::primary_window()).observe(save_to_disk(path.clone()));
    }
    if *frame > last + 2 && capturing.is_empty() && path.exists() {
        exit.write(AppExit::Success);
    }
}
