from bitgnn import QuantConfig
from bitgnn.training import Recipe, build_model
from bitgnn.training.latent import latent_weights, quantized_layers, split_parameters


def test_latent_weights():
    model = build_model("gat", 16, 3, Recipe(), "b158")
    assert [id(w) for w in latent_weights(model)] == [id(conv.lin.weight) for conv in model.convs]
    assert len(quantized_layers(model)) == 2


def test_full_precision_has_none():
    assert quantized_layers(build_model("gcn", 16, 3, Recipe())) == []


def test_quantized_activations_alone_leave_no_latent_weight():
    model = build_model("gcn", 16, 3, Recipe(), QuantConfig(weight_bits=None))
    assert len(quantized_layers(model)) == 2
    assert latent_weights(model) == []


def test_parameters_are_latent_or_not():
    model = build_model("gat", 16, 3, Recipe(), "b158")
    latent, others = split_parameters(model)
    assert [id(w) for w in latent] == [id(w) for w in latent_weights(model)]
    every = [id(param) for param in model.parameters()]
    assert sorted(map(id, latent + others)) == sorted(every)
    assert [id(p) for p in others] == [each for each in every if each not in set(map(id, latent))]
