/* A plugin for QEMU's user-mode emulators (plugin interface version 1, QEMU 4.2 to 8.x): prints the
 * number of guest instructions executed. The interface is declared here, as its header is not
 * packaged; see https://www.qemu.org/docs/master/devel/tcg-plugins.html.
 *
 *   gcc -shared -fPIC qemu_count.c -o count.so
 *   qemu-aarch64 -plugin ./count.so -d plugin PROGRAM
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*call)(plugin_id, struct qemu_plugin_tb*));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* block, void (*call)(unsigned, void*),
                                                 int registers, void* data);
extern void qemu_plugin_register_atexit_cb(plugin_id id, void (*call)(plugin_id, void*), void* data);
extern void qemu_plugin_outs(const char* text);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t executed;

static void on_execution(unsigned cpu, void* instructions) {
    (void)cpu;
    executed += (uintptr_t)instructions;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb* block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_execution, 0, (void*)qemu_plugin_tb_n_insns(block));
}

static void on_exit(plugin_id id, void* data) {
    (void)id;
    (void)data;
    char text[64];
    snprintf(text, sizeof text, "instructions: %llu\n", (unsigned long long)executed);
    qemu_plugin_outs(text);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void* info, int argc, char** argv) {
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
