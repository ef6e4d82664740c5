"""The built-in atlas: dermoscopic images drawn from the criteria that dermatologists read.

A *lesion seed* fixes the lesion: its outline, pigment, structures and the skin it grows on. A *view
seed* fixes the photograph: orientation, zoom, position, light, vignette, hair, ruler, gel bubbles,
blur, grain. The class affects only the lesion. Skin and photograph do not depend on the label, so
only the dermoscopic criteria tell the classes apart. With a `difficulty` above 0, lesions
borrow criteria from other classes, so that the classes overlap.

A lesion is drawn in its own frame, in which its mean radius is 1. Two maps of chromophore (melanin,
blood) absorb light by the Beer-Lambert law; layers of opaque colour lie on top. The photograph
rotates, scales and shifts that frame into the picture.

The pictures are for teaching and testing. They do not replace real images and say nothing about
patients.

Sources of the criteria:
- Argenziano et al., Dermoscopy of pigmented skin lesions: results of a consensus meeting via the
  Internet, J Am Acad Dermatol 48(5), 679-693, 2003 ("consensus" below);
- Nachbar et al., The ABCD rule of dermatoscopy, J Am Acad Dermatol 30(4), 551-559, 1994;
- Menzies et al., Surface microscopy of pigmented basal cell carcinoma, Arch Dermatol 136(8),
  1012-1016, 2000;
- Braun et al., Dermoscopy of pigmented seborrheic keratosis: a morphological study, Arch Dermatol
  138(12), 1556-1560, 2002;
- for the three rarer classes see :mod:`.rare`.
"""

from derm_hash.atlas.atlas import Atlas, draw_criterion, draw_lesion, make_atlas
from derm_hash.atlas.criteria import CRITERIA, lesion_criteria
from derm_hash.atlas.lesion import ALL_CLASSES, CLASSES
