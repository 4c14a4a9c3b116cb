"""Question 1a: how many parameters does the model have, and how large is it?"""

from stepcost import jobs
from stepcost.measure.process import Worker


def test_parameters_and_size(benchmark, row, model, dataset, settings):
    """1a. Does counting the built model agree with the closed form, and what does it weigh?"""
    row(
        question="1a",
        source="measured",
        timed="build",
        model=model.name,
        num_classes=dataset.num_classes,
        parameters=model.parameters,
        parameters_closed_form=model.parameters_closed_form,
        parameter_bytes=model.parameter_bytes,
        buffers=model.buffers,
        buffer_bytes=model.buffer_bytes,
    )
    with Worker(jobs.INSPECTION) as worker:
        rebuilt = benchmark.pedantic(
            worker.call, args=("model", model.name, dataset.num_classes, settings.image_size), rounds=1
        )
    assert rebuilt == model
    assert model.parameters_closed_form in (model.parameters, None)
    assert model.parameter_bytes == 4 * model.parameters  # fp32
