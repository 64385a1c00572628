"""Any folder in the layout of MSD or of nnU-Net, raw; classes come from its dataset.json.

Cases without a label are unlabelled, and all others are labelled unless splits.labelled says how
many patients are. What no flag says is planned from what is in the folder; python -m mijax.plan
says how and why. Set how many patients are held back for test:

python -m mijax.main --config configs/folder.py --config.data.source.dir=FOLDER \
    --config.data.splits.test=5
"""

from mijax import methods
from mijax.configs import common

_STEPS = 3000
# A T for anatomy that always lies the same way: patients differ by some degrees and a tenth in
# size, and none is upside down. Where yours lies anyhow (cells, skin), turn and flip it.
_VIEW = {"rotation": 15.0, "shear": 0.0, "scale": (0.9, 1.1), "flip": 0.0}
_SAFE = {**_VIEW, "ramp_steps": _STEPS // 2}  # the first predictions teach nothing
OF_METHOD = {
    method: {k: v for k, v in _SAFE.items() if k in methods.defaults(method)}
    for method in methods.names()
    if method not in ("boundary_iic", "position_contrast")  # pre-training has views of its own
}


def get_config(method="mixed_mi"):  # above partial supervision on all real volumes
    config = common.get_config(method)
    config.name = ""  # that of the folder
    config.plan = True
    config.steps = _STEPS
    config.label_loss = "cross_entropy+dice"  # by cross-entropy alone a rare class may die
    config.method.update(OF_METHOD.get(method, {}))
    config.teacher.update(_VIEW)
    for consistency in (config.method, config.teacher):
        if "ramp_steps" in consistency:  # half of the steps, whatever these are set to
            consistency.ramp_steps = config.get_oneway_ref("steps") // 2
    data = config.data
    data.source.patient_pattern = ""  # regular expression on case names; group 1 is the patient
    data.source.test_images = True  # whether imagesTs are cases, too
    data.splits.labelled = 0
    data.splits.validation = 2
    data.patches.size = ()  # as it is planned
    data.patches.fit = "resize"
    augmentation = config.augmentation
    augmentation.brightness = 0.1
    augmentation.contrast = 0.2
    augmentation.gamma = 0.2
    return config
