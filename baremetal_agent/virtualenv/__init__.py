"""The backend that will run workloads in virtual environments. Has no implementation yet."""
