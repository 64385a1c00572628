"""Any folder in the layout of MSD or of nnU-Net v2 (raw); classes come from its dataset.json.

Cases without a label are unlabelled. Say at least how many patients are held back, and a size
(multiples of 16) that holds the slices; python -m mijax.inspect FOLDER proposes one:

python -m mijax.main --config configs/folder.py --config.data.dir=FOLDER \
    --config.data.validation_cases=3 --config.data.test_cases=5 --config.data.size='(256,256)'
"""

from configs import common


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = ""  # that of the folder
    config.steps = 6000
    data = config.data
    data.patient_pattern = ""  # regular expression: its first group on a case name is the patient
    data.test_images = True  # whether imagesTs are unlabelled cases
    data.labelled_cases = 0
    data.validation_cases = 2
    data.size = ()  # none: a run without one is refused, with one that holds all slices
    data.fit = "resize"
    augmentation = config.augmentation
    augmentation.brightness = 0.1
    augmentation.contrast = 0.2
    augmentation.gamma = 0.2
    return config
