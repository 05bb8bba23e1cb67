# The base of every container: Debian + CPython 3.11 + the packages of one lock, compiled, and nothing else.
#
# Built by runner/sandbox/images/base.py, offline and with the classic builder (no BuildKit syntax), from
#   ROOTFS     id of a Debian image with python3.11, its venv module and headers, gcc and g++
#              (the compilers and headers are what torch.compile and Triton need at run time)
#   IMPORTS    the modules that must import, or the build fails
#   BUILDER    who builds: finds what a failed build leaves behind, without touching somebody else's
#   requirements.lock, wheels/   in the build context
ARG ROOTFS
FROM ${ROOTFS} AS build
ARG BUILDER
LABEL org.autoresearch.kind=build org.autoresearch.builder=${BUILDER}
ARG IMPORTS
COPY requirements.lock /build/requirements.lock
COPY wheels /build/wheels
# pip stays behind, in a virtual environment of its own. The .pyc files are kept: `import torch` takes half the time
# with them, and a read-only container could never write them. Compiling on all cores halves the build; a few test
# files are for another Python and do not compile, hence the `|| true`.
RUN python3.11 -m venv --without-pip /opt/venv \
 && python3.11 -m venv /build/pip \
 && /build/pip/bin/python -m pip --python /opt/venv/bin/python --isolated --disable-pip-version-check install \
      --quiet --no-index --find-links /build/wheels --require-hashes --no-deps --no-cache-dir --no-compile \
      --root-user-action ignore --requirement /build/requirements.lock \
 && { python3.11 -m compileall -qq -j 0 /opt/venv/lib || true; } \
 && /opt/venv/bin/python -B -c "import ${IMPORTS}"

FROM ${ROOTFS}
ARG BUILDER
LABEL org.autoresearch.kind=base org.autoresearch.builder=${BUILDER}
COPY --from=build /opt/venv /opt/venv
# 10001: no account of the host has it, and unlike 65534 it owns no file system's reserved blocks.
# Debian's set-uid programs have no use here. Some Python images come without the standard library's .pyc files.
RUN groupadd --gid 10001 candidate \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin candidate \
 && mkdir /candidate /locked /data /val /out \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && { python3.11 -m compileall -qq -j 0 "$(python3.11 -c 'import os; print(os.path.dirname(os.__file__))')" || true; }
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
ENTRYPOINT []
CMD []
