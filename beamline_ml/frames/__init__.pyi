from .aps_results import ApsResult as ApsResult
from .aps_results import load_aps_result as load_aps_result
from .formats import open_file as open_file
from .mask_files import load_mask as load_mask
from .open import open_frames as open_frames
from .qmap_files import load_qmap as load_qmap
from .reader import FrameReader as FrameReader
