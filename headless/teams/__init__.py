"""Workers that share the tasks of a job: threads or processes of this machine, or actors of a Ray cluster.

A worker is an object of the job's own, a task one call of its methods. Which worker does a task shows in nothing but the time.
"""

from .crew import Task, Team, WorkerLostError, agreed, in_order
from .on_ray import OnRay
from .post import Post, Recruit
from .processes import Processes
from .threads import Threads

__all__ = ["OnRay", "Post", "Processes", "Recruit", "Task", "Team", "Threads", "WorkerLostError", "agreed", "in_order"]
