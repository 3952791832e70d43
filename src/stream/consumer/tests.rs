//! Tables, feature by feature, against messages in memory.
