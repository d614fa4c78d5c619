//! Registration on live models: torch's checks in torch's words, and one edited model among others.

use std::sync::{Arc, Mutex};

use ndarray::{Array1, Array2, Array3, array};
use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::module::registered::Registered;
use neurarch::hooks;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::lookup::Attribute;
use neurarch::systems::edit::registration::RegistrationError;

use crate::known::Known;

/// A value as the recorded cases name it.
fn value(kind: &str) -> Value {
    let numbers = array![0.5_f32, 1.5];
    match kind {
        "parameter" => Value::parameter(numbers.view()),
        "tensor" | "nonleaf" => Value::tensor(numbers.view()),
        "module" => Value::module(Linear::new(2, 2)),
        "string" => Value::Other("str".into()),
        "number" => Value::Other("int".into()),
        _ => Value::None,
    }
}

/// Does one step of a case; gives torch's exception and its text.
fn step(world: &mut World, module: Entity, step: [&str; 3]) -> Result<(), (String, String)> {
    let [operation, name, kind] = step;
    let name = if name == "~" { "" } else { name };
    let registered = |result: Result<(), RegistrationError>| {
        result.map_err(|error| (error.exception().to_owned(), error.to_string()))
    };
    let found = |error: neurarch::systems::edit::lookup::LookupError| {
        ("AttributeError".to_owned(), error.to_string())
    };
    let value = value(kind);
    let mut module = world.part(module);
    match operation {
        "register_parameter" => registered(module.register_parameter(name, value)),
        "register_buffer" => registered(module.register_buffer(name, value, true)),
        "add_module" => registered(module.add_module(name, value).map(drop)),
        "register_module" => registered(module.register_module(name, value).map(drop)),
        "setattr" => registered(module.setattr(name, value)),
        "delattr" => registered(module.delattr(name)),
        "getattr" => registered(module.getattr(name).map(drop)),
        "get_submodule" => module.get_submodule(name).map(drop).map_err(found),
        "get_parameter" => module.get_parameter(name).map(drop).map_err(found),
        "get_buffer" => module.get_buffer(name).map(drop).map_err(found),
        other => panic!("{other}"),
    }
}

/// What a case leaves: names of the state dict, parameters, buffers and children.
type Names<'a> = [&'a [&'a str]; 4];

/// Performs a case on an empty module; a step with an error says torch's exception and text.
#[track_caller]
fn case(steps: &[([&str; 3], Option<[&str; 2]>)], names: Names<'_>) {
    let mut world = World::new();
    let models = world.spawn_population(&BareModule::new(), 2, Seed(1)).unwrap().id();
    let root = world.population(models).unwrap().models()[0];
    for (taken, error) in steps {
        let expected = error.map(|[exception, text]| (exception.to_owned(), text.to_owned()));
        assert_eq!(step(&mut world, root, *taken).err(), expected, "{taken:?}");
    }
    let state: Vec<_> =
        world.part(root).state_dict().unwrap().into_iter().map(|of| of.name).collect();
    let parameters = world.part(root).named_parameters().unwrap().into_iter().map(|of| of.name);
    let parameters: Vec<_> = parameters.collect();
    let buffers: Vec<_> =
        world.part(root).named_buffers().unwrap().into_iter().map(|of| of.name).collect();
    let children: Vec<_> =
        world.part(root).named_children().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!([state, parameters, buffers, children], names.map(|names| names.to_vec()));
    let other = world.population(models).unwrap().models()[1];
    assert!(world.part(other).state_dict().unwrap().is_empty());
}

#[test]
fn names_are_checked_as_in_torch() {
    let dot = |what: &'static str| match what {
        "parameter" => Some(["KeyError", "parameter name can't contain \".\""]),
        "buffer" => Some(["KeyError", "buffer name can't contain \".\""]),
        _ => Some(["KeyError", "module name can't contain \".\", got: a.b"]),
    };
    case(
        &[
            (["register_parameter", "a.b", "parameter"], dot("parameter")),
            (["register_buffer", "a.b", "tensor"], dot("buffer")),
            (["add_module", "a.b", "module"], dot("module")),
            (["register_module", "a.b", "module"], dot("module")),
            (
                ["register_parameter", "~", "parameter"],
                Some(["KeyError", "parameter name can't be empty string \"\""]),
            ),
            (
                ["register_buffer", "~", "tensor"],
                Some(["KeyError", "buffer name can't be empty string \"\""]),
            ),
            (
                ["add_module", "~", "module"],
                Some(["KeyError", "module name can't be empty string \"\""]),
            ),
        ],
        [&[]; 4],
    );
    let exists = Some(["KeyError", "attribute 'forward' already exists"]);
    case(
        &[
            (["register_parameter", "forward", "parameter"], exists),
            (["register_buffer", "forward", "tensor"], exists),
            (["add_module", "forward", "module"], exists),
            (["setattr", "forward", "parameter"], exists),
        ],
        [&[]; 4],
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused_as_in_torch() {
    let tensor = "cannot assign 'torch.FloatTensor' object to parameter 'p' (torch.nn.Parameter or None required)";
    let text = "cannot assign 'str' object to parameter 'p' (torch.nn.Parameter or None required)";
    let buffer = "cannot assign 'str' object to buffer 'b' (torch Tensor or None required)";
    let number = "cannot assign 'int' object to buffer 'b' (torch Tensor or None required)";
    let child = "torch.FloatTensor is not a Module subclass";
    case(
        &[
            (["register_parameter", "p", "tensor"], Some(["TypeError", tensor])),
            (["register_parameter", "p", "nonleaf"], Some(["TypeError", tensor])),
            (["register_parameter", "p", "string"], Some(["TypeError", text])),
            (["register_buffer", "b", "string"], Some(["TypeError", buffer])),
            (["register_buffer", "b", "number"], Some(["TypeError", number])),
            (["add_module", "m", "tensor"], Some(["TypeError", child])),
            (["add_module", "m", "string"], Some(["TypeError", "str is not a Module subclass"])),
        ],
        [&[]; 4],
    );
}

#[test]
fn names_without_values_are_not_listed_and_can_be_filled() {
    let nones = [
        (["register_parameter", "p", "none"], None),
        (["register_buffer", "b", "none"], None),
        (["add_module", "m", "none"], None),
    ];
    case(&nones, [&[]; 4]);
    case(
        &[
            nones[0],
            (["setattr", "p", "parameter"], None),
            nones[1],
            (["setattr", "b", "tensor"], None),
            nones[2],
            (["setattr", "m", "module"], None),
        ],
        [&["p", "b", "m.weight", "m.bias"], &["p", "m.weight", "m.bias"], &["b"], &["m"]],
    );
}

#[test]
fn a_name_is_taken_once_but_can_be_registered_again_for_the_same() {
    let exists = Some(["KeyError", "attribute 'w' already exists"]);
    let parameter = ["register_parameter", "w", "parameter"];
    let buffer = ["register_buffer", "w", "tensor"];
    let module = ["add_module", "w", "module"];
    case(
        &[(parameter, None), (parameter, None), (buffer, exists), (module, exists)],
        [&["w"], &["w"], &[], &[]],
    );
    case(
        &[(buffer, None), (buffer, None), (parameter, exists), (module, exists)],
        [&["w"], &[], &["w"], &[]],
    );
    let inside = &["w.weight", "w.bias"];
    case(
        &[(module, None), (module, None), (parameter, exists), (buffer, exists)],
        [inside, inside, &[], &["w"]],
    );
    case(
        &[
            (["setattr", "t", "tensor"], None),
            (
                ["register_buffer", "t", "tensor"],
                Some(["KeyError", "attribute 't' already exists"]),
            ),
        ],
        [&[]; 4],
    );
}

#[test]
fn assignment_follows_what_is_there() {
    let over = |given: &str| {
        format!("cannot assign '{given}' as parameter 'w' (torch.nn.Parameter or None expected)")
    };
    let [tensor, text, module] =
        ["torch.FloatTensor", "str", "torch.nn.modules.linear.Linear"].map(over);
    case(
        &[
            (["setattr", "w", "parameter"], None),
            (["setattr", "w", "tensor"], Some(["TypeError", &tensor])),
            (["setattr", "w", "string"], Some(["TypeError", &text])),
            (["setattr", "w", "none"], None),
            (["setattr", "w", "parameter"], None),
            (["setattr", "w", "module"], Some(["TypeError", &module])),
        ],
        [&["w"], &["w"], &[], &[]],
    );
    let text = "cannot assign 'str' as buffer 'b' (torch.nn.Buffer, torch.Tensor or None expected)";
    case(
        &[
            (["register_buffer", "b", "tensor"], None),
            (["setattr", "b", "string"], Some(["TypeError", text])),
            (["setattr", "b", "tensor"], None),
            (["setattr", "b", "none"], None),
            (["setattr", "b", "parameter"], None),
        ],
        [&["b"], &["b"], &[], &[]],
    );
    let over = |given| {
        format!("cannot assign '{given}' as child module 'm' (torch.nn.Module or None expected)")
    };
    case(
        &[
            (["setattr", "m", "module"], None),
            (["setattr", "m", "tensor"], Some(["TypeError", &over("torch.FloatTensor")])),
            (["setattr", "m", "string"], Some(["TypeError", &over("str")])),
            (["setattr", "m", "none"], None),
            (["setattr", "m", "module"], None),
            (["setattr", "m", "parameter"], None),
        ],
        [&["m"], &["m"], &[], &[]],
    );
}

#[test]
fn what_is_deleted_is_gone() {
    let gone = |name: &str| format!("'Module' object has no attribute '{name}'");
    case(
        &[
            (["setattr", "w", "parameter"], None),
            (["delattr", "w", ""], None),
            (["getattr", "w", ""], Some(["AttributeError", &gone("w")])),
            (["delattr", "w", ""], Some(["AttributeError", &gone("w")])),
            (["setattr", "m", "module"], None),
            (["delattr", "m", ""], None),
            (["getattr", "m", ""], Some(["AttributeError", &gone("m")])),
        ],
        [&[]; 4],
    );
}

#[test]
fn lookups_by_path_fail_in_torchs_words() {
    let error = |text| Some(["AttributeError", text]);
    case(
        &[
            (["setattr", "lin", "module"], None),
            (["register_buffer", "b", "tensor"], None),
            (["get_submodule", "lin", ""], None),
            (["get_submodule", "~", ""], None),
            (["get_submodule", "none", ""], error("Module has no attribute `none`")),
            (["get_submodule", "lin.weight", ""], error("`weight` is not an nn.Module")),
            (["get_parameter", "lin.weight", ""], None),
            (["get_parameter", "lin.gone", ""], error("Linear has no attribute `gone`")),
            (["get_parameter", "b", ""], error("`b` is not an nn.Parameter")),
            (["get_parameter", "no.weight", ""], error("Module has no attribute `no`")),
            (["get_buffer", "b", ""], None),
            (["get_buffer", "lin.weight", ""], error("`weight` is not a buffer")),
            (["get_buffer", "gone", ""], error("Module has no attribute `gone`")),
        ],
        [&["b", "lin.weight", "lin.bias"], &["lin.weight", "lin.bias"], &["b"], &["lin"]],
    );
}

#[test]
fn a_buffer_that_is_none_is_there_and_a_parameter_is_not() {
    let mut world = World::new();
    let models = world.spawn_population(&BareModule::new(), 1, Seed(1)).unwrap().id();
    let root = world.population(models).unwrap().models()[0];
    world.part(root).register_buffer("b", Value::None, true).unwrap();
    world.part(root).register_parameter("p", Value::None).unwrap();
    assert_eq!(world.part(root).get_buffer("b").unwrap(), None);
    let text = |error: neurarch::systems::edit::lookup::LookupError| error.to_string();
    assert_eq!(
        text(world.part(root).get_parameter("p").unwrap_err()),
        "`p` is not an nn.Parameter"
    );
    assert_eq!(text(world.part(root).get_buffer("p").unwrap_err()), "`p` is not a buffer");
    world.part(root).register_buffer("b", Value::tensor(array![1.0_f32].view()), true).unwrap();
    assert_eq!(world.part(root).get_buffer("b").unwrap().unwrap().name, "b");
}

#[test]
fn an_entity_without_a_layer_component_is_not_initialized() {
    let mut world = World::new();
    let entity = world.spawn_empty().id();
    let text = |result: Result<(), RegistrationError>| result.unwrap_err().to_string();
    let told = "cannot assign parameters before Module.__init__() call";
    assert_eq!(text(world.part(entity).setattr("w", value("parameter"))), told);
    let told = "cannot assign module before Module.__init__() call";
    assert_eq!(text(world.part(entity).setattr("w", value("module"))), told);
    let told = "cannot assign parameter before Module.__init__() call";
    assert_eq!(text(world.part(entity).register_parameter("w", value("parameter"))), told);
    let told = "cannot assign buffer before Module.__init__() call";
    assert_eq!(text(world.part(entity).register_buffer("w", value("tensor"), true)), told);
    // A layer component alone does not make it part of a model.
    world.entity_mut(entity).insert(Linear::new(1, 1));
    assert!(world.part(entity).register_parameter("w", value("parameter")).is_err());
}

const MODELS: usize = 4;

fn network() -> Sequential {
    Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2))
}

fn inputs() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 6, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

#[test]
fn one_edited_model_leaves_its_neighbors_as_they_are() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(3)).unwrap().id();
    world.brains(brains).insert(Adam::default()).unwrap();
    let targets = Array2::<i64>::zeros((MODELS, 6));
    let loss = CrossEntropyLoss::default();
    world.brains(brains).train_step(&inputs(), &targets, &loss).unwrap();
    let roots = world.population(brains).unwrap().models().to_vec();
    let before = world.brains(brains).forward(&inputs()).unwrap();
    let head = world.part(roots[1]).get_submodule("2").unwrap();
    let kept = world.part(roots[1]).parameter::<f32>("2.weight").unwrap();

    // Without its bias the layer computes less; what is still there keeps its numbers.
    world.part(head).setattr("bias", Value::None).unwrap();
    assert_eq!(world.part(roots[1]).parameter::<f32>("2.weight").unwrap(), kept);
    let after = world.brains(brains).forward(&inputs()).unwrap();
    for model in 0..MODELS {
        let [before, after] = [&before, &after].map(|y| y.index_axis(ndarray::Axis(0), model));
        assert_eq!(before == after, model != 1);
    }
    // A new bias of zeros is as good as none.
    world.part(head).setattr("bias", Value::parameter(Array1::<f32>::zeros(2).view())).unwrap();
    assert_eq!(world.brains(brains).forward(&inputs()).unwrap(), after);
    world.brains(brains).train_step(&inputs(), &targets, &loss).unwrap();
    assert_ne!(
        world.part(roots[1]).parameter::<f32>("2.bias").unwrap(),
        Array1::<f32>::zeros(2).into_dyn()
    );

    // A deleted one is missed by the layer that needs it.
    world.part(head).delattr("weight").unwrap();
    let error = world.brains(brains).forward(&inputs()).unwrap_err();
    assert!(error.to_string().contains("'Linear' object has no attribute 'weight'"), "{error}");
}

#[test]
fn a_replaced_parameter_has_no_gradient() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[2];
    world.brains(brains).forward(&inputs()).unwrap();
    world.brains(brains).backward_from(&Array3::<f32>::ones((MODELS, 6, 2))).unwrap();
    let head = world.part(root).get_submodule("2").unwrap();
    let numbers = array![1.0_f32, 2.0];
    world.part(head).setattr("bias", Value::parameter(numbers.view())).unwrap();
    assert_eq!(world.part(root).parameter::<f32>("2.bias").unwrap(), numbers.into_dyn());
    assert_eq!(world.part(root).gradient::<f32>("2.bias").unwrap(), None);
    assert!(world.part(root).gradient::<f32>("2.weight").unwrap().is_some());
    let other = world.population(brains).unwrap().models()[0];
    assert!(world.part(other).gradient::<f32>("2.bias").unwrap().is_some());
}

#[test]
fn modules_are_replaced_in_place_and_set_by_path() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    world.part(root).set_submodule("1", ReLU, true).unwrap();
    world.part(root).set_submodule("0", Sequential::new().push(Linear::new(3, 4)), true).unwrap();
    world.part(root).set_submodule("0.1", ELU::default(), false).unwrap();
    let modules = world.part(root).named_modules().unwrap();
    let names: Vec<_> = modules.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["", "0", "0.0", "0.1", "1", "2"]);
    let classes: Vec<_> =
        modules.iter().map(|&(_, entity)| world.part(entity).class_name().unwrap()).collect();
    assert_eq!(classes, ["Sequential", "Sequential", "Linear", "ELU", "ReLU", "Linear"]);
    // New layers have first numbers of their own.
    assert!(world.part(root).parameter::<f32>("0.0.weight").unwrap().iter().all(|&x| x != 0.0));
    world.brains(brains).forward(&inputs()).unwrap();

    let told = |result: Result<Entity, RegistrationError>| {
        let error = result.unwrap_err();
        (error.exception(), error.to_string())
    };
    let none = ("ValueError", "Cannot set the submodule without a target name!".to_owned());
    assert_eq!(told(world.part(root).set_submodule("", Tanh, false)), none);
    let error = ("AttributeError", "Sequential has no attribute `7`".to_owned());
    assert_eq!(told(world.part(root).set_submodule("7", Tanh, true)), error);
    let error = ("AttributeError", "`weight` is not an nn.Module".to_owned());
    assert_eq!(told(world.part(root).set_submodule("2.weight", Tanh, false)), error);
}

#[test]
fn registration_hooks_see_and_replace_what_is_registered() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let handle =
        hooks::register_module_parameter_registration_hook(&mut world, move |at, value| {
            log.lock().unwrap().push(format!("{}.{}", at.class, at.name));
            assert!(matches!(value, Value::Parameter { .. }));
            Ok(Some(Value::drawn_parameter([3], Init::Ones)))
        })
        .unwrap();
    let log = seen.clone();
    hooks::register_module_module_registration_hook(&mut world, move |at, value| {
        log.lock().unwrap().push(format!("{}.{}", at.class, at.name));
        Ok(matches!(value, Value::Module(_)).then(|| Value::module(Sigmoid)))
    })
    .unwrap();
    hooks::register_module_buffer_registration_hook(&mut world, |_, _| {
        Err("no buffers here".into())
    })
    .unwrap();

    world.part(root).register_parameter("scale", value("parameter")).unwrap();
    world.part(root).setattr("3", Value::module(Tanh)).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["Sequential.scale", "Sequential.3"]);
    let ones = Array1::<f32>::ones(3).into_dyn();
    assert_eq!(world.part(root).parameter::<f32>("scale").unwrap(), ones);
    let last = world.part(root).get_submodule("3").unwrap();
    assert!(world.get::<Sigmoid>(last).is_some());
    let error = world.part(root).register_buffer("b", value("tensor"), true).unwrap_err();
    assert_eq!(error.to_string(), "buffer registration hook 0: no buffers here");
    assert!(handle.remove());
    world.part(root).register_parameter("scale", value("parameter")).unwrap();
    assert_eq!(world.part(root).parameter::<f32>("scale").unwrap().shape(), [2]);
    // Such hooks do not make anything run eagerly.
    world.brains(brains).forward(&inputs()).unwrap();
}

#[test]
fn bevys_observers_see_what_is_registered() {
    #[derive(Resource, Default)]
    struct Edits(Vec<Entity>);
    let mut world = World::new();
    world.init_resource::<Edits>();
    world.add_observer(|event: On<Insert<Registered>>, mut edits: ResMut<Edits>| {
        edits.0.push(event.entity);
    });
    let brains = world.spawn_population(&network(), MODELS, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    world.part(root).register_parameter("scale", value("parameter")).unwrap();
    assert_eq!(world.resource::<Edits>().0, [root]);
}

#[test]
fn what_stays_in_use_elsewhere_is_not_taken_away() {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 3)).push(Linear::new(3, 3));
    let brains = world.spawn_population(&net, 2, Seed(3)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    world.part(roots[0]).tie("1.weight", "0.weight").unwrap();
    let first = world.part(roots[0]).get_submodule("0").unwrap();
    let error = world.part(first).delattr("weight").unwrap_err();
    assert_eq!(error.to_string(), "'weight' is in use as '1.weight'");
    let error = world.part(roots[0]).delattr("0").unwrap_err();
    assert_eq!(error.to_string(), "'0' is in use as '1.weight'");
    // The tied one can go, and come back with numbers of its own.
    let second = world.part(roots[0]).get_submodule("1").unwrap();
    let numbers = Array2::<f32>::ones((3, 3));
    world.part(second).setattr("weight", Value::parameter(numbers.view())).unwrap();
    assert_eq!(world.part(roots[0]).parameter::<f32>("1.weight").unwrap(), numbers.into_dyn());
    assert_ne!(world.part(roots[0]).parameter::<f32>("0.weight").unwrap()[[0, 0]], 1.0);
    world.part(first).delattr("weight").unwrap();
}

#[test]
fn parameters_are_f32_or_f64_and_drawn_as_they_can_be() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), 1, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let counts = Value::parameter(array![1_i64].view());
    let error = world.part(root).register_parameter("n", counts).unwrap_err();
    assert_eq!(
        error.to_string(),
        "parameter 'n': Only Tensors of floating point and complex dtype can require gradients"
    );
    let eye = Value::drawn_parameter([2, 2, 2], Init::Eye);
    assert!(world.part(root).register_parameter("n", eye).is_err());
    assert!(world.part(root).getattr("n").is_err());
    let counts = array![3_i64, 4];
    world.part(root).register_buffer("n", Value::tensor(counts.view()), false).unwrap();
    assert_eq!(world.part(root).parameter::<i64>("n").unwrap(), counts.into_dyn());
    assert_eq!(world.part(root).state_dict().unwrap().len(), 4);
    assert!(matches!(world.part(root).getattr("n"), Ok(Attribute::Buffer(Some(_)))));
    assert!(matches!(world.part(root).getattr("forward"), Ok(Attribute::OfType)));
}

#[test]
fn what_is_registered_is_cloned_and_spawned_with_its_model() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), 2, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let numbers = array![7.0_f32];
    world.part(root).register_parameter("scale", Value::parameter(numbers.view())).unwrap();
    let copy = world.spawn_empty().id();
    EntityCloner::build_opt_out(&mut world).linked_cloning(true).clone_entity(root, copy);
    assert_eq!(world.part(copy).parameter::<f32>("scale").unwrap(), numbers.into_dyn());
    let new = world.brains(brains).spawn_models(1).unwrap()[0];
    assert_eq!(world.part(new).parameter::<f32>("scale").unwrap().shape(), [1]);
    // Edits of another kind are on top of it.
    world.part(new).delattr("scale").unwrap();
    assert!(world.part(root).parameter::<f32>("scale").is_ok());
}
