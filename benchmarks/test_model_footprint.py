"""Question 1a: how many parameters does the model have, and how large is it?"""


def test_parameters_and_size(benchmark, row, session, model, dataset):
    """1a. Does counting the built model agree with the closed form, and what does it weigh?"""
    row(
        question="1a",
        source="measured",
        timed="build",
        model=model.name,
        num_classes=dataset.num_classes if model.kind == "images" else None,
        parameters=model.parameters,
        trainable_parameters=model.trainable_parameters,
        frozen_parameters=model.frozen_parameters,
        parameters_closed_form=model.parameters_closed_form,
        parameter_bytes=model.parameter_bytes,
        trainable_parameter_bytes=model.trainable_parameter_bytes,
        buffers=model.buffers,
        buffer_bytes=model.buffer_bytes,
    )
    rebuilt = benchmark.pedantic(session.model_again, rounds=1)
    assert rebuilt == model
    assert model.parameters_closed_form in (model.parameters, None)
    if model.dtypes == ("float32",):
        assert model.parameter_bytes == 4 * model.parameters
