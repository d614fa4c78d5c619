//! The classes and functions that torch's `weights_only` allows a pickle to name.

/// Those that come alone.
const ALONE: [&str; 31] = [
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_csr_tensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_wrapper_subclass",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.per_channel_affine",
    "torch.per_channel_affine_float_qparams",
    "torch.per_channel_symmetric",
    "torch.per_tensor_affine",
    "torch.per_tensor_symmetric",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
];

/// Element types: `torch.float32`.
const DTYPES: [&str; 47] = [
    "bcomplex32",
    "bfloat16",
    "bits16",
    "bits1x8",
    "bits2x4",
    "bits4x2",
    "bits8",
    "bool",
    "complex128",
    "complex32",
    "complex64",
    "float16",
    "float32",
    "float4_e2m1fn_x2",
    "float64",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "int1",
    "int2",
    "int3",
    "int4",
    "int5",
    "int6",
    "int7",
    "int8",
    "int16",
    "int32",
    "int64",
    "qint32",
    "qint8",
    "quint2x4",
    "quint4x2",
    "quint8",
    "uint1",
    "uint2",
    "uint3",
    "uint4",
    "uint5",
    "uint6",
    "uint7",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
];

/// Storages of which there is no tensor class: `torch.QInt8Storage`.
const STORAGES: [&str; 7] =
    ["ComplexDouble", "ComplexFloat", "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8"];

/// Storages and tensor classes, of CUDA as well: `torch.FloatStorage`, `torch.cuda.FloatTensor`.
const ELEMENTS: [&str; 10] =
    ["BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short"];

/// Returns whether `weights_only` allows a class or function by its dotted name.
///
/// Source: `torch._weights_only_unpickler._get_allowed_globals`, of torch 1.13 and 2.15.
pub(super) fn is_allowed(path: &str) -> bool {
    if ALONE.contains(&path) {
        return true;
    }
    let Some(name) = path.strip_prefix("torch.") else { return false };
    let of_device = name.strip_prefix("cuda.").unwrap_or(name);
    let of_layout = of_device.strip_prefix("sparse.").unwrap_or(of_device);
    let storage = of_device.strip_suffix("Storage");
    let class = of_layout.strip_suffix("Tensor");
    DTYPES.contains(&name)
        || storage.is_some_and(|of| ELEMENTS.contains(&of) || STORAGES.contains(&of))
        || class.is_some_and(|of| ELEMENTS.contains(&of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_state_dicts_name_is_allowed_and_what_acts_is_not() {
        let allowed = [
            "collections.OrderedDict",
            "torch._utils._rebuild_tensor_v2",
            "torch.FloatStorage",
            "torch.cuda.HalfStorage",
            "torch.QInt8Storage",
            "torch.sparse.FloatTensor",
            "torch.float8_e5m2",
            "torch.Size",
        ];
        for path in allowed {
            assert!(is_allowed(path), "{path}");
        }
        let refused = [
            "os.system",
            "builtins.eval",
            "torch.load",
            "torch.nn.modules.linear.Linear",
            "torch.Storage",
            "torch.cuda.float32",
            "numpy.core.multiarray._reconstruct",
            "__main__.Net",
            "",
        ];
        for path in refused {
            assert!(!is_allowed(path), "{path}");
        }
    }
}
