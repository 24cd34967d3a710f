"""Join recorded sources again and compare, batch by batch, with what a ledger took of them.

A live monitor reads when it reads, so its batches are cut anywhere; several readers may even overlap. What does not
depend on that is which rows there are between two corners. So the sources are joined once more, always as far as the
ledger has come, and each row that the fold takes must be among those that were joined, and none may be left over.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from streams.arrays import pack
from streams.config import Config
from streams.coverage import Corner, Coverage
from streams.differences import Difference, difference
from streams.reader import FEEDBACK, PREDICTIONS, Position, Raw, Reader
from streams.reader import digest_of_range as digest_of_range
from streams.recording import Topics
from streams.records import Batch, Coded, Part
from streams.routing import partitions_of
from unship.rejections import RejectCode
