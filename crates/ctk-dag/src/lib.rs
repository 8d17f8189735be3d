//! A graph of needs: cycle report, ready-set scheduler.
