#!/bin/sh
date +%Y
