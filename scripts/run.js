#!/usr/bin/env node
// Runs a script, or a tool of this package, under a Node that is new enough: `node scripts/run.js scripts/demo.ts ...`.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findNode } from '../src/cli/find-node.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const [script, ...args] = process.argv.slice(2)
const found = findNode()
if (found.node === undefined) {
  console.error(found.message)
  process.exit(1)
}
const tool = join(root, 'node_modules', '.bin', script)
const target = existsSync(tool) && !script.includes('/') ? tool : join(root, script)
const { status, signal } = spawnSync(found.node, [target, ...args], { stdio: 'inherit', env: { ...process.env, PATH: `${dirname(found.node)}:${process.env.PATH}` } })
process.exit(status ?? (signal === 'SIGINT' ? 130 : 1))
