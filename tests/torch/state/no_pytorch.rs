//! Without the feature `pytorch`, files of `torch.save` are errors that name it.

use neurarch::prelude::*;

#[test]
fn a_file_of_torch_save_is_an_error_that_names_the_feature() {
    let mut world = World::new();
    let mut nets = world.spawn_population(&Linear::new(3, 4), 1, Seed(0)).unwrap();
    for name in ["state_dict", "state_dict_legacy"] {
        let path = format!("{}/tests/golden/pytorch/2.15/{name}.pt", env!("CARGO_MANIFEST_DIR"));
        let error = nets.load_file(&path).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{path}: a file of torch.save needs neurarch's feature `pytorch`")
        );
    }
}

#[test]
#[ignore = "needs --features pytorch"]
fn files_of_torch_save_are_read() {
    panic!("this program was built without the feature");
}
